"""Entities that are generated: their keys, what is read, exact fits, and that nothing but a
candidate is written."""

import copy
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from conftest import nlpkit, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit import encoders, tasks
from nlpkit.encoders.base import encode
from nlpkit.inference.predictor import predict_examples
from nlpkit.jsonl import read_jsonl
from nlpkit.tasks.entity_linking import generative as entity_writer
from nlpkit.tasks.entity_linking.candidates import prepare_lexicon
from nlpkit.tasks.entity_linking.generative import Writing
from nlpkit.tasks.entity_linking.kb import EntityBase
from nlpkit.text.tokenizer import TokenBatch

GOLDEN = Path(__file__).parents[2] / "golden" / "entity_linking"
SHAPE = encoders.ShapeConfig(
    layers=2, hidden_size=32, heads=2, intermediate_size=48, max_length=512, dropout=0.0
)
LINES = [
    "1\t雾灯\t\t长篇小说",
    "2\t雾灯\t\t长篇小说",
    "3\t雾灯\t\t电影",
    "4\t雾\t\t天气",
    "5\t雾灯节\t雾灯\t",
    "\U000187ff\t许蓁\t\t作家",
    "\U000187fe\t许蓁\t\t作家",
]


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(1)
    made, backend = encoders.for_pretraining(None, SHAPE)
    return made.double().eval(), encoders.tokenizer_of(made, backend)


@pytest.fixture(scope="module")
def writing(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kb")
    (folder / "kb.tsv").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    prepare_lexicon(str(folder / "kb.tsv"), [], folder, 62)
    return Writing(EntityBase.open(folder / "kb"), encoder[1])


def generative(encoder, folder, **settings):
    """(task, model, examples) of the golden lines, with an encoder that knows nothing."""
    task_class = tasks.load("entity_linking")
    records = list(read_jsonl(GOLDEN / "sample.jsonl"))
    config = task_class.Config(kb=str(GOLDEN / "kb.jsonl"), generative=True, **settings)
    task = task_class(task_class.prepare(config, records, folder), encoder[1], folder)
    model = task.build_model(copy.deepcopy(encoder[0]).float())
    return task, model.eval(), [task.read(record) for _, record in records]


def enumerated(encoder, source, key):
    """log p(key | source), all of it read at once."""
    model, tokenizer = encoder
    ids = [tokenizer.cls_id, *source, tokenizer.sep_id, *key]
    token_ids_BT = torch.tensor([ids])
    segment_ids_BT = (torch.arange(len(ids)) > len(source) + 1).long()[None]
    mask_BT = torch.ones_like(token_ids_BT).bool()
    with torch.no_grad():
        tokens = TokenBatch(token_ids_BT, segment_ids_BT, mask_BT, mask_BT)
        hidden_BTH = encode(model, tokens, attention="prefix")
        log_probs_TV = model.token_logits(hidden_BTH[0, len(source) + 1 :]).log_softmax(-1)
    return float(log_probs_TV.gather(1, torch.tensor([*key, tokenizer.cls_id])[:, None]).sum())


def test_namesakes_that_begin_alike_have_their_ids_in_their_keys(writing):
    ids, sep = writing.tokenizer.token_ids, writing.tokenizer.sep_id
    name, novel = ids("雾灯"), ids("长篇小说")
    assert writing.keys([0, 1, 2, 4]) == [
        (),
        (*name, sep, *novel, sep, *ids("1")),
        (*name, sep, *novel, sep, *ids("2")),
        (*name, sep, *ids("电影")),
        (*ids("雾灯节"), sep),
    ]
    assert writing.keys([1, 3])[1] == (*name, sep, *novel)
    assert len(set(writing.keys([5, 6]))) == 2  # ids of unknown characters


def test_all_keys_of_a_knowledge_base_are_unlike_that_of_nil_and_end_only_once(encoder, writing):
    backend = tokenizers.Tokenizer.from_str(encoder[1].backend.to_str())
    backend.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer = type(encoder[1])(backend)
    assert tokenizer.token_ids("[CLS]") == (tokenizer.cls_id,)
    assert Writing(writing.kb, tokenizer)._tokens("雾[CLS]灯[SEP]", 9) == list(
        tokenizer.token_ids("雾灯")
    )


def test_the_mention_is_marked_and_what_lies_far_from_it_is_cut(writing):
    encoding, sep = writing.tokenizer.encode("雾灯和雾灯"), writing.tokenizer.sep_id
    lamp, both = writing.tokenizer.token_ids("雾灯"), writing.tokenizer.token_ids("和")
    assert writing.source(encoding, (1, 3)) == [sep, *lamp, sep, *both, *lamp]
    assert writing.source(encoding, (4, 6)) == [*lamp, *both, sep, *lamp, sep]
    long = writing.tokenizer.encode("夜" * 300 + "雾灯" + "昼" * 300)
    side = entity_writer.AROUND
    night, day = (writing.tokenizer.token_ids(c) * side for c in "夜昼")
    assert writing.source(long, (301, 303)) == [*night, sep, *lamp, sep, *day]


@settings(max_examples=25)
@given(st.data())
def test_fits_are_those_of_all_keys_enumerated_in_float64(encoder, writing, data):
    rows = st.lists(st.integers(0, len(LINES) - 1), min_size=1, max_size=len(LINES), unique=True)
    asked = []
    for _ in range(data.draw(st.integers(1, 3))):
        encoding = writing.tokenizer.encode(
            data.draw(st.text("雾灯许蓁的书", min_size=1, max_size=6))
        )
        asked.append((writing.source(encoding, (1, 2)), writing.keys(data.draw(rows))))
    for fits, (source, keys) in zip(writing.fits(encoder[0], "cpu", asked), asked, strict=True):
        log_probs = np.array([enumerated(encoder, source, key) for key in keys])
        np.testing.assert_allclose(fits, log_probs - log_probs[0], atol=1e-4)
        assert fits[0] == 0


def test_the_loss_is_that_of_the_mentions_and_of_the_right_keys(encoder, tmp_path):
    task, model, examples = generative(encoder, tmp_path)
    batch = task.collate(examples)
    with torch.no_grad():
        loss_B, mentions_B = (
            model(batch),
            model.mention_loss(encoders.encode(model.encoder, batch.tokens), batch),
        )
    kb, expected = task.lexicon.kb, mentions_B.tolist()
    writing = Writing(kb, task.tokenizer)
    for row, example in enumerate(examples):
        for mention in example.gold.mentions:
            alias, span = example.place(mention)
            rows = kb.entities_of(alias).tolist()
            place = 0 if mention.entity is None else 1 + rows.index(kb.row(alias, mention.entity))
            expected[row] -= enumerated(
                encoder, writing.source(example.encoding, span), writing.keys(rows)[place]
            )
    np.testing.assert_allclose(loss_B, expected, rtol=1e-5)


def test_whatever_the_weights_only_candidates_are_written(encoder, tmp_path):
    task, model, examples = generative(encoder, tmp_path, threshold=-1e9, nil_threshold=-1e9)
    kb, seen = task.lexicon.kb, 0
    for example, prediction in zip(examples, predict_examples(task, model, examples), strict=True):
        for mention in prediction.mentions:
            may = {
                kb.id(row) for row in kb.entities_of(example.aliases[mention.start, mention.end])
            }
            assert {candidate.entity for candidate in mention.candidates} == may
            assert mention.entity in may
            seen += 1
    assert seen > 10


def test_training_hides_nothing_that_is_to_be_written(encoder, tmp_path):
    task, _, examples = generative(encoder, tmp_path, hide=0.9)
    augment = task.augmenter(examples)
    made = [
        augment(example, np.random.default_rng(seed)) for seed in range(9) for example in examples
    ]
    assert not any(example.hidden or example.negatives for example in made)
    assert all(example.without is not None for example in made)


def test_an_encoder_without_its_head_cannot_write(tmp_path):
    data = write_lines(
        tmp_path / "data.jsonl", (record for _, record in read_jsonl(GOLDEN / "sample.jsonl"))
    )
    settings = [
        f"--set=entity_linking.kb={GOLDEN / 'kb.jsonl'}",
        "--set=entity_linking.generative=true",
    ]
    files = ["--data", data, "--dev", data, "--out", tmp_path / "run", "--encoder=dgcnn"]
    done = nlpkit("train", "entity_linking", *files, *settings, check=False)
    assert done.returncode == 2
    assert b"dgcnn has no masked-LM head" in done.stderr
