"""A teacher: which tokens its pieces cover, an exact gradient for every cut, exact resume, and
refusals."""

import json
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import tokenizers
import torch
from small_pretraining import opened, weights
from tokenizers import models, pre_tokenizers, processors

from nlpkit import encoders
from nlpkit.encoders import ShapeConfig, transformer
from nlpkit.encoders.base import encode, encode_layers
from nlpkit.encoders.checkpoint.load import load_encoder, save_encoder
from nlpkit.errors import SettingsError
from nlpkit.pretraining.alignment import BlockTexts, covered_tokens
from nlpkit.pretraining.corpus import encode_text, split_tokens, token_type
from nlpkit.pretraining.distillation import Distillation
from nlpkit.pretraining.objectives import Pretrainer, masked_batch
from nlpkit.pretraining.resume import finished_summary
from nlpkit.pretraining.settings import PretrainConfig, PretrainPlan
from nlpkit.pretraining.symbols import symbols_of
from nlpkit.pretraining.teacher import Teacher, open_teacher
from nlpkit.training.checkpoints import CHECKPOINT

SMALL = {"layers": 2, "hidden_size": 32, "heads": 2, "intermediate_size": 48, "max_length": 64}
FEW = {
    "tokens": 4096,
    "batch_tokens": 512,
    "length": 32,
    "long_share": 0.3,
    "evaluate_every": 2048,
    "precision": "fp32",
}
WORDS = [
    "北京",
    "上海",
    "天津",
    "书店",
    "开了",
    "一家",
    "写了",
    "一本书",
    "▁in",
    "read",
    "▁的",
    "19",
]
LINES = [
    f"{year}年，{name}在{place}开了一家书店，he read in {place}，后来又写了一本书。"
    for year in range(1200, 1900)
    for name, place in (("王小明", "北京"), ("李雷", "上海"), ("韩梅梅", "天津"))
]
BACKEND = encoders.load_tokenizer("tiny").backend


def unigram(words):
    """A SentencePiece tokenizer of these words and all characters of the texts."""
    characters = sorted({character for line in LINES for character in line if character != " "})
    scores = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁", -4.0)]
    scores += [(word, -2.0) for word in words] + [(character, -5.0) for character in characters]
    backend = tokenizers.Tokenizer(models.Unigram(scores, unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    ends = [("<s>", 0), ("</s>", 2)]
    backend.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=ends)
    return backend


def bert(tokens, **more):
    config = {"model_type": "bert", "vocab_size": tokens, "hidden_size": 24}
    config |= {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    config |= {"max_position_embeddings": 40, "pad_token_id": 1}
    torch.manual_seed(3)
    return transformer.Encoder(config | more)


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    backend = unigram(WORDS)
    save_encoder(folder, bert(backend.get_vocab_size()), backend)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return str(path)


def blocks_of(lines, length=30):
    dtype = token_type(BACKEND)
    separator = np.array([BACKEND.token_to_id("[SEP]")], dtype)
    parts = []
    for line in lines:
        parts += [encode_text(line, BACKEND, dtype), separator]
    tokens = np.concatenate(parts)
    return [tokens[start : start + length] for start in range(0, len(tokens) - length, length)]


def plan(text, out, teacher, **changes):
    config = PretrainConfig(**{**FEW, **changes})
    return PretrainPlan((text,), out, config, ShapeConfig(**SMALL), teacher=teacher)


def random_spans(dice, count, size, may_overlap):
    spans = []
    start = 0
    for _ in range(count):
        start = dice.randrange(max(0, start - 2), start + 2) if may_overlap else start
        end = start + dice.randrange(size)
        spans.append((start, end))
        start = end
    return np.array(spans).reshape(-1, 2)


def test_covered_tokens_are_those_that_share_a_character():
    for seed in range(300):
        dice = random.Random(seed)
        tokens = random_spans(dice, dice.randrange(8), 3, False)
        pieces = random_spans(dice, dice.randrange(8), 4, True)
        counts, found = covered_tokens(tokens, pieces)
        expected = []
        for start, end in pieces:
            characters = set(range(start, end))
            shared = [n for n, span in enumerate(tokens) if characters & set(range(*span))]
            expected.append(shared)
        assert [len(shared) for shared in expected] == counts.tolist()
        assert [token for shared in expected for token in shared] == found.tolist()


def test_the_text_of_a_block():
    line = "Hello big world，2023年3.5万𠮷!"
    block = np.concatenate(blocks_of([line], 5))
    text, spans = BlockTexts(BACKEND).text(*split_tokens(block))
    assert text == "hello big world,2023年3.5万□!"[: len(text)]
    for (start, end), token_id in zip(spans, split_tokens(block)[0], strict=True):
        token = BACKEND.id_to_token(int(token_id))
        shown = {"[UNK]": "□", "[SEP]": ""}.get(token, token)
        assert text[start:end] == shown
    pieces = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "[SEP]": 1, "play": 2, "##ing": 3}))
    ids, begins = np.array([2, 3, 2, 1, 2]), np.array([True, False, True, False, True])
    assert BlockTexts(pieces).text(ids, begins)[0] == "playing play\nplay"


def test_a_lesson_has_the_tokens_under_each_piece():
    for seed in range(8):
        dice = random.Random(seed)
        line = dice.choice(LINES)
        words = [line[n : n + dice.randrange(2, 5)] for n in dice.sample(range(len(line)), 5)]
        backend = unigram(sorted({word.replace(" ", "▁") for word in words if len(word) > 1}))
        encoder = bert(backend.get_vocab_size(), max_position_embeddings=20)
        teacher = Teacher(encoder, backend, ([0], [2]), BACKEND)
        blocks = blocks_of(dice.sample(LINES, 4), 25)[:5]
        lesson = teacher.lesson(blocks)
        found = set()
        ids = torch.cat([group.token_ids_BT.flatten() for group in lesson.texts])
        ends = [*lesson.first_P.tolist()[1:], len(lesson.covered_K)]
        for piece, end in enumerate(ends):
            tokens = tuple(lesson.covered_K[lesson.first_P[piece] : end].tolist())
            found.add((int(lesson.row_P[piece]), int(ids[lesson.places_P[piece]]), tokens))
        assert found == brute_force(teacher, backend, blocks)
        assert lesson.rows == 5
        assert max(group.token_ids_BT.shape[1] for group in lesson.texts) <= 20


def brute_force(teacher, backend, blocks):
    expected = set()
    for row, block in enumerate(blocks):
        text, spans = teacher.block_texts.text(*split_tokens(block))
        read = backend.encode(text, add_special_tokens=False)
        for token_id, token, offsets in list(zip(read.ids, read.tokens, read.offsets, strict=True))[:18]:  # fmt: skip
            characters = set(range(*offsets))
            columns = [n for n, span in enumerate(spans) if characters & set(range(*span))]
            if columns and token != "▁":
                expected.add((row, token_id, tuple(row * (len(block) + 2) + 1 + n for n in columns)))  # fmt: skip
    return expected


@pytest.mark.parametrize("family", ["bert", "roformer", "electra"])
def test_the_last_layer_is_what_the_encoder_gives(family):
    encoder = bert(50, model_type=family, embedding_size=24).train()
    encoders.set_dropout(encoder, 0.0)
    dice = torch.Generator().manual_seed(1)
    teacher = Teacher(encoder, unigram(WORDS), ([0], [2]), BACKEND)
    tokens = teacher._batch([torch.randint(5, 50, (9,), generator=dice).tolist(), [7, 8, 9]])
    encoder.train()
    first, last = encode_layers(encoder, tokens, "full", (1, 3))
    torch.testing.assert_close(last, encode(encoder, tokens), atol=1e-6, rtol=0)
    assert not torch.allclose(first, last)


def pretrainer(teacher_folder, double):
    torch.manual_seed(1)
    shape = ShapeConfig(**SMALL)
    encoder, backend = encoders.for_pretraining(None, shape)
    teacher = open_teacher(str(teacher_folder), backend)
    distillation = Distillation(encoder, teacher)
    model = Pretrainer(encoder, False, False, distillation, 0.7)
    if double:
        model.double()
        teacher.encoder.double()
    return model, teacher


def test_a_step_does_not_depend_on_how_it_is_cut(teacher_folder):
    model, teacher = pretrainer(teacher_folder, double=True)
    blocks = blocks_of(LINES[:9])[:7]
    model.distillation.measure(teacher.lesson(blocks))
    symbols = symbols_of(BACKEND)
    found = []
    for cuts in ([0, 7], [0, 1, 4, 7]):
        model.zero_grad()
        for start, end in zip(cuts, cuts[1:], strict=False):
            randoms = [np.random.default_rng((2, row)) for row in range(start, end)]
            part = blocks[start:end]
            batch = masked_batch(part, randoms, 0.25, symbols)
            batch = replace(batch, lesson=teacher.lesson(part))
            losses = model(batch)
            assert losses.shape == batch.targets_N.shape
            losses.sum().backward()
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        found.append({name: parameter.grad.clone() for name, parameter in trained})
    for name, gradient in found[0].items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradient, found[1][name], atol=1e-9, rtol=1e-9)


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    encoder, backend = encoders.for_pretraining("tiny", ShapeConfig())
    teacher = Teacher(
        load_encoder(encoders.folder_of("tiny")), backend, ([backend.token_to_id("[CLS]")], [backend.token_to_id("[SEP]")]), backend,
    )  # fmt: skip
    sentences = ["今天的天气很好，我们去公园散步。", "他在北京开了一家书店，后来又写了一本书。"]
    blocks = [encode_text(sentence, backend, token_type(backend))[:16] for sentence in sentences]
    lesson = teacher.lesson(blocks)
    distillation = Distillation(encoder, teacher)
    distillation.measure(lesson)
    with torch.no_grad():
        for index, projection in enumerate(distillation.projections):
            deviation_H = distillation.deviation_LH[index]
            projection.weight.copy_(torch.diag(1 / deviation_H))
            projection.bias.copy_(-distillation.mean_LH[index] / deviation_H)
        clean = masked_batch(blocks, [np.random.default_rng(1)] * 2, 1e-9, symbols_of(backend))
        ids = clean.tokens.token_ids_BT.flatten()
        ids[clean.places_N] = clean.targets_N
        model = Pretrainer(encoder, False, False, distillation)
        loss_B = distillation(lesson, model.taught_layers(clean))
        distillation.projections[1].weight.zero_()
        distillation.projections[1].bias.zero_()
        blind_B = distillation(lesson, model.taught_layers(clean))
    assert loss_B.max() < 1e-4
    assert blind_B.mean() == pytest.approx(0.5, abs=0.02)  # nothing of one layer in two


@pytest.mark.parametrize("stop", [1, 5])
def test_a_resumed_pretraining_with_a_teacher_is_exact(text, tmp_path, teacher_folder, stop):
    teacher = str(teacher_folder)
    expected = weights(opened(plan(text, tmp_path / "straight", teacher)))
    weights(opened(plan(text, tmp_path / "stopped", teacher)), stop)
    assert (tmp_path / "stopped" / CHECKPOINT).exists()
    with pytest.raises(SettingsError, match="cannot resume: teacher"):
        opened(plan(text, tmp_path / "stopped", None))
    with pytest.raises(SettingsError, match=r"cannot resume: pretrain\.teacher_random"):
        opened(plan(text, tmp_path / "stopped", teacher, teacher_random=True))
    found = weights(opened(plan(text, tmp_path / "stopped", teacher)))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert any("projections" in name for name in expected)
    assert not any("teacher" in name for name in expected)
    stored = safetensors.torch.load_file(tmp_path / "stopped" / "model.safetensors")
    assert not any("distillation" in name for name in stored)
    last = json.loads((tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < last["teacher_loss"] < 1.5
    assert -1 < last["teacher_similarity"] < 1
    record = encoders.record_of(str(tmp_path / "stopped"))
    assert record["teacher"]["name"] == teacher_folder.name
    assert record["teacher"]["sha256"][:16] in (tmp_path / "stopped" / "README.md").read_text()
    assert finished_summary(plan(text, tmp_path / "stopped", teacher), is_main=True)
    with pytest.raises(SettingsError, match="holds a finished pretraining: teacher"):
        finished_summary(plan(text, tmp_path / "stopped", None), is_main=True)


def test_a_teacher_without_weight_changes_nothing(text, tmp_path, teacher_folder):
    without = weights(opened(plan(text, tmp_path / "without", None)))
    zero = plan(text, tmp_path / "zero", str(teacher_folder), teacher_weight=0.0)
    found = weights(opened(zero))
    assert without.keys() == found.keys()
    assert all(torch.equal(without[name], found[name]) for name in found)


def test_it_learns_what_the_teacher_says(text, tmp_path, teacher_folder):
    changes = {"tokens": 40_000, "evaluate_every": 10_240, "learning_rate": 5e-3, "average": 0.5}
    weights(opened(plan(text, tmp_path / "out", str(teacher_folder), **changes)))
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").open()]
    assert lines[-1]["teacher_loss"] < 0.85 < lines[0]["teacher_loss"]
    assert lines[-1]["teacher_similarity"] > lines[0]["teacher_similarity"]


def test_random_weights_are_those_of_the_seed(teacher_folder):
    before = torch.get_rng_state()
    made = [open_teacher(str(teacher_folder), BACKEND, True, seed).encoder for seed in (1, 1, 2)]
    assert torch.equal(before, torch.get_rng_state())
    first, again, other = (encoder.model.embeddings.word_embeddings.weight for encoder in made)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_refusals(text, tmp_path, teacher_folder):
    with pytest.raises(SettingsError, match="no such directory"):
        open_teacher(str(tmp_path / "none"), BACKEND)
    bare = tmp_path / "bare"
    shutil.copytree(teacher_folder, bare)
    (bare / "tokenizer.json").unlink()
    with pytest.raises(SettingsError, match=r"no tokenizer\.json"):
        open_teacher(str(bare), BACKEND)
    (bare / "tokenizer.json").write_text("{}")
    with pytest.raises(SettingsError, match="not a tokenizer"):
        open_teacher(str(bare), BACKEND)
    unigram([*WORDS, "更多"]).save(str(bare / "tokenizer.json"))
    with pytest.raises(SettingsError, match="more tokens than embeddings"):
        open_teacher(str(bare), BACKEND)
    roberta = tmp_path / "roberta"
    shutil.copytree(teacher_folder, roberta)
    stored = safetensors.torch.load_file(roberta / "model.safetensors")
    renamed = {name.replace("bert.", "roberta."): tensor for name, tensor in stored.items()}
    safetensors.torch.save_file(renamed, roberta / "model.safetensors")
    with pytest.raises(SettingsError, match="another family") as raised:
        open_teacher(str(roberta), BACKEND)
    assert "encoder convert" in raised.value.hint
    with pytest.raises(SettingsError, match="there is no teacher"):
        plan(text, tmp_path / "out", None, teacher_random=True).check()
    next_token = encoders.settings_of("on_lstm")(layers=2, hidden_size=16, chunk=4)
    asked = replace(plan(text, tmp_path / "out", str(teacher_folder)), shape=next_token)
    with pytest.raises(SettingsError, match="learns the next token alone"):
        replace(asked, encoder="on_lstm").check()
