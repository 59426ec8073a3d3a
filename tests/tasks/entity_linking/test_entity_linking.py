"""Entity linking: link statistics without the text's own part, descriptions kept, NIL, a changed knowledge base, what data
check finds."""

import dataclasses
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DRY, SMALL, SMALL_FLAGS, nlpkit, write_lines

from nlpkit import encoders, samples, tasks
from nlpkit.errors import RecordError, SettingsError
from nlpkit.inference.predictor import Predictor, predict_examples
from nlpkit.jsonl import dumps, read_jsonl
from nlpkit.layers.steady_products import steady
from nlpkit.samples import entity_linking as sample
from nlpkit.tasks.entity_linking.batch import Links
from nlpkit.tasks.entity_linking.link_statistics import PARTS, LinkStatistics, part_of
from nlpkit.tasks.entity_linking.model import beside

GOLDEN = Path(__file__).parents[2] / "golden" / "entity_linking"


@pytest.fixture
def kb(tmp_path):
    return Path(shutil.copy(GOLDEN / "kb.jsonl", tmp_path / "kb.jsonl"))


def prepared(kb, folder, records=None, **settings):
    """(task, model) with a small encoder, prepared on the golden lines or on others."""
    folder.mkdir(exist_ok=True)
    task_class = tasks.load("entity_linking")
    encoder, tokenizer = encoders.load("dgcnn", encoders.settings_of("dgcnn")(**SMALL, **DRY))
    records = (
        list(read_jsonl(GOLDEN / "sample.jsonl"))
        if records is None
        else [("x:1", r) for r in records]
    )
    config = task_class.prepare(task_class.Config(kb=str(kb), **settings), records, folder)
    task = task_class(config, tokenizer, folder)
    return task, task.build_model(encoder).eval()


def told(text, *mentions):
    """A record; a mention is (string, entity)."""
    spans = [(text.index(string), string, entity) for string, entity in mentions]
    return {
        "text": text,
        "mentions": [{"start": s, "end": s + len(n), "entity": e} for s, n, e in spans],
    }


def test_link_statistics_of_a_text_leave_its_own_part_out(kb, tmp_path):
    texts = [f"开灯{number}" for number in range(40)]
    records = [
        told(text, *([("灯", "9")] if number % 4 else [])) for number, text in enumerate(texts)
    ]
    task, _ = prepared(kb, tmp_path / "run", records)
    statistics, base = task.lexicon.statistics, task.lexicon.kb
    (alias,) = {match.alias for match in base.matches("灯")}
    assert len({part_of(text) for text in texts}) == PARTS
    for text in texts:
        others = [number for number, other in enumerate(texts) if part_of(other) != part_of(text)]
        marked = sum(number % 4 > 0 for number in others)
        expected = np.log((marked + 1) / (len(others) - marked + 1)), np.log1p(len(others))
        np.testing.assert_allclose(statistics.marks(np.array([alias]), part_of(text)), [expected])
    np.testing.assert_allclose(
        statistics.marks(np.array([alias]), None), [[np.log(31 / 11), np.log1p(40)]]
    )
    rows, priors = task.lexicon.candidates(alias, "灯", part_of(texts[0]))
    assert [base.id(row) for row in rows] == ["9"]
    left = sum(
        number % 4 > 0 and part_of(text) != part_of(texts[0]) for number, text in enumerate(texts)
    )
    assert priors[0, 0] == pytest.approx(np.log1p(left))
    opened = LinkStatistics.open(tmp_path / "run", len(base.first) - 1, len(base.entities))
    np.testing.assert_array_equal(opened.marked.count_NF, statistics.marked.count_NF)


def test_training_shows_a_text_only_the_link_statistics_of_other_parts(kb, tmp_path):
    task, _ = prepared(kb, tmp_path / "run", hide=0.5)
    examples = [task.read(record) for _, record in read_jsonl(GOLDEN / "sample.jsonl")]
    assert all(example.without is None for example in examples)
    augment = task.augmenter(examples)
    made = [
        augment(example, np.random.default_rng(seed)) for seed in range(20) for example in examples
    ]
    assert all(example.without == part_of(example.encoding.text) for example in made)
    assert {len(example.negatives) for example in made} == {0, 3, 6}
    assert 0.3 < np.mean([example.hidden for example in made]) < 0.7
    hidden = [e for e in made if e.hidden and e.gold.mentions]
    assert not task.collate(hidden).links.target_M.any()


def test_the_one_who_is_meant_most_often_comes_first(kb, tmp_path):
    task, _ = prepared(kb, tmp_path / "run", [told("看雾灯", ("雾灯", "2"))], choices=1)
    alias = task.lexicon.kb.alias("雾灯")
    rows, _ = task.lexicon.candidates(alias, "雾灯", None)
    assert [task.lexicon.kb.id(row) for row in rows] == ["2"]
    rows, _, place = task.lexicon.training_candidates(
        alias, "雾灯", "1", None, np.zeros(0, np.int64), False
    )
    assert task.lexicon.kb.id(rows[place]) == "1"
    assert (
        task.lexicon.training_candidates(alias, "雾灯", "5", None, np.zeros(0, np.int64), False)
        is None
    )


def test_the_right_one_beyond_the_first_has_its_own_priors(kb, tmp_path):
    """Of two namesakes one place: 1 takes that of 2, and not its priors; nor do random others."""
    lines = [
        told("看雾灯", ("雾灯", "2")),
        told("雾灯好看", ("雾灯", "2")),
        told("雾灯", ("雾灯", "1")),
    ]
    whole, _ = prepared(kb, tmp_path / "whole", lines)
    task, _ = prepared(kb, tmp_path / "run", lines, choices=1)
    alias = task.lexicon.kb.alias("雾灯")
    given = alias, "雾灯", "1", None, np.array([5]), False
    rows, priors, place = task.lexicon.training_candidates(*given)
    assert ([task.lexicon.kb.id(row) for row in rows], place) == (["1", "6"], 0)
    all_rows, all_priors = whole.lexicon.candidates(alias, "雾灯", None)
    own = all_priors[[whole.lexicon.kb.id(row) for row in all_rows].index("1")]
    once_meant, share = 0, 1
    np.testing.assert_array_equal(np.delete(priors[0], share), np.delete(own, share))
    assert priors[0, once_meant] == pytest.approx(np.log(2))
    np.testing.assert_array_equal(priors[1], priors[0])


def test_what_is_to_be_learned_has_the_right_one_and_others_with_its_priors(kb, tmp_path):
    task, _ = prepared(kb, tmp_path / "run", [told("看雾灯", ("雾灯", "2"))])
    lexicon, alias, others = task.lexicon, task.lexicon.kb.alias("雾灯"), np.array([0, 4, 5])
    rows, priors, place = lexicon.training_candidates(alias, "雾灯", "2", None, others, False)
    assert ([lexicon.kb.id(row) for row in rows], place) == (["2", "1", "5", "6"], 0)
    np.testing.assert_array_equal(priors[2:], priors[[0, 0]])
    assert priors[0, 0] > priors[1, 0]
    rows, priors, place = lexicon.training_candidates(alias, "雾灯", "2", None, others, True)
    assert ([lexicon.kb.id(row) for row in rows], len(priors), place) == (["1", "5", "6"], 3, -1)
    rows, _, place = lexicon.training_candidates(alias, "雾灯", None, None, others, False)
    assert ([lexicon.kb.id(row) for row in rows], place) == (["2", "1", "5", "6"], -1)


def test_an_unknown_character_is_no_shared_one(kb, tmp_path, monkeypatch):
    task, model = prepared(kb, tmp_path / "run")
    seen = []
    whole = model.matcher.forward

    def spy(text, *others):
        seen.append(text.content_NT & (text.token_ids_NT == task.tokenizer.unk_id))
        return whole(text, *others)

    monkeypatch.setattr(model.matcher, "forward", spy)
    example = task.read(told("雾灯\U00013000", ("雾灯", "2")))
    assert task.tokenizer.unk_id in example.encoding.token_ids_T
    with torch.no_grad():
        model(task.collate([example]))
    assert seen
    assert not any(bool(unknown.any()) for unknown in seen)


def test_kept_descriptions_are_what_encoding_anew_gives(kb, tmp_path):
    task, model = prepared(kb, tmp_path / "run")
    examples = [task.read(record) for _, record in read_jsonl(GOLDEN / "sample.jsonl")]
    batch = task.collate(examples)
    with torch.no_grad():
        for rows in ([3], [0, 3, 5], batch.links.rows):
            kept = model.entities(rows, task._collator.descriptions)
        hidden_BTH = encoders.encode(model.encoder, batch.tokens)
        encodings = [
            task.tokenizer.encode(task.lexicon.kb.description(row)) for row in batch.links.rows
        ]
        new = beside(
            model.read([(batch.links.rows, task.tokenizer.collate(encodings))]), batch.links.rows
        )
        fits = [
            model.fit(hidden_BTH, batch.tokens, batch.links, entities) for entities in (kept, new)
        ]
    torch.testing.assert_close(*fits, rtol=1e-5, atol=1e-5)
    assert sorted(row for row, _ in model.described) == batch.links.rows
    model.eval()
    assert not model.described  # the weights may have changed since


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_description_has_the_same_vectors_whatever_is_encoded_with_it(kb, tmp_path, precision):
    task, model = prepared(kb, tmp_path / "run")
    steady(model)
    everything = list(range(len(task.lexicon.kb)))
    is_bf16 = precision == torch.bfloat16
    with torch.inference_mode():
        model.entities(everything[:3], task._collator.descriptions)  # another type of numbers
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            model.entities(everything, task._collator.descriptions)
            together = dict(model.described)
            for size in (1, 2, 3, 5):
                model.eval()  # forgets
                for first in range(0, len(everything), size):
                    rows = everything[::-1][first : first + size]
                    model.entities(rows, task._collator.descriptions)
                for key, (states, ids) in model.described.items():
                    assert torch.equal(states, together[key][0]), (size, key)
                    assert torch.equal(ids, together[key][1])


def test_a_line_gives_the_same_bytes_with_descriptions_kept_or_not_and_in_any_thread(kb, tmp_path):
    settings = {"threshold": -100.0, "nil_threshold": 0.0, "unknown": False}
    task, model = prepared(kb, tmp_path / "run", **settings)
    records = [
        (number, {"text": record["text"]})
        for number, (_, record) in enumerate(read_jsonl(GOLDEN / "sample.jsonl"), 1)
    ]
    predictor = Predictor(task, model)

    def output(record):
        (outcome,) = predictor([record])
        return dumps(outcome.prediction)

    cold = []
    for record in records:
        model.eval()  # forgets
        cold.append(output(record))
    assert any(b'"candidates":[{' in line for line in cold)
    assert [output(record) for record in records] == cold
    model.eval()
    assert [output(record) for record in records[::-1]] == cold[::-1]
    model.eval()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(output, records * 5)) == cold * 5


def test_no_more_descriptions_are_kept_than_allowed(kb, tmp_path, monkeypatch):
    monkeypatch.setattr("nlpkit.tasks.entity_linking.model.KEPT", 3)
    task, model = prepared(kb, tmp_path / "run")
    for rows in ([0, 1], [2, 3], [0, 1, 2, 3, 4]):
        model.entities(rows, task._collator.descriptions)
        assert set(rows) <= {row for row, _ in model.described}
        assert len(model.described) <= max(3, len(rows))


def test_pairs_become_rows_of_their_mention():
    links = dataclasses.replace(
        Links.of([]), text_M=torch.zeros(3, dtype=torch.int64), mention_N=torch.tensor([0, 0, 2])
    )
    table = links.by_mention(torch.tensor([1.0, 2.0, 3.0]))
    assert table.tolist() == [[0, 1, 2], [0, -torch.inf, -torch.inf], [0, 3, -torch.inf]]
    assert Links.of([]).by_mention(torch.zeros(0)).shape == (0, 1)


def test_the_encoder_can_only_veto_unless_there_are_unknown_names(kb, tmp_path):
    for unknown in (False, True):
        task, model = prepared(kb, tmp_path / str(unknown), unknown=unknown)
        batch = task.collate([task.read({"text": "小说《雾灯》有多少页？"})], targets=False)
        allowed = (
            model.scores(encoders.encode(model.encoder, batch.tokens), batch)
            .allowed_BTT[0]
            .nonzero()
            .tolist()
        )
        spans = {
            tuple(batch.examples[0].encoding.char_span((first, last + 1)))
            for first, last in allowed
        }
        assert ({(3, 5), (4, 5)} == spans) is not unknown


def test_names_that_no_entity_has_are_learned_where_training_has_them(kb, tmp_path):
    records = [record for _, record in read_jsonl(GOLDEN / "sample.jsonl")]
    assert prepared(kb, tmp_path / "a", records)[0].config.unknown is False
    new = told("小说《逆光的列车》有多少页？", ("逆光的列车", None))
    task, model = prepared(kb, tmp_path / "b", [*records, new])
    assert task.config.unknown is True
    examples = [task.read(record) for record in [*records, new]]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(150):
        optimizer.zero_grad()
        model(task.collate(examples)).mean().backward()
        optimizer.step()
    (prediction,) = predict_examples(task, model.eval(), examples[-1:])
    assert [(m.text, m.entity, m.choices) for m in prediction.mentions] == [("逆光的列车", None, 0)]


def test_a_knowledge_base_that_changed_is_refused_and_one_that_went_is_not_needed(kb, tmp_path):
    task, model = prepared(kb, tmp_path / "run")
    again = type(task)(task.config, task.tokenizer, tmp_path / "run")
    text = task.read({"text": "许蓁写了雾灯"})
    assert again.config.kb_sha256 == again.lexicon.kb.source
    kb.write_text(kb.read_text(encoding="utf-8").replace("217", "218"), encoding="utf-8")
    with pytest.raises(
        SettingsError, match=r"kb.jsonl: the knowledge base changed after training"
    ) as caught:
        type(task)(task.config, task.tokenizer, tmp_path / "run")
    assert "train again" in caught.value.hint
    kb.unlink()
    again = type(task)(task.config, task.tokenizer, tmp_path / "run")
    assert predict_examples(again, model, [text]) == predict_examples(task, model, [text])


def test_without_a_knowledge_base_training_says_how_to_give_one(tmp_path):
    task_class = tasks.load("entity_linking")
    with pytest.raises(
        SettingsError, match=r"entity_linking.kb: expected a knowledge base, got none"
    ):
        task_class.prepare(task_class.Config(), [], tmp_path)


def test_data_check_finds_gold_that_no_model_can_see(kb, tmp_path):
    task, _ = prepared(kb, tmp_path / "run")
    found = {}
    for record in [
        told("看逆光", ("逆光", "7")),
        told("看雾灯", ("雾灯", "5")),
        told("看雾灯", ("雾灯", None)),
        told("看灯", ("灯", "9")),
    ]:
        (kind,) = [finding.kind for finding in task.report(task.read(record))] or [None]
        found[record["mentions"][0]["entity"]] = kind
    assert found == {"7": "unknown alias", "5": "unknown entity", None: None, "9": None}


def test_an_offset_that_does_not_match_its_mention_is_an_error_with_its_place(kb, tmp_path):
    line = {"text": "看雾灯", "mention_data": [{"mention": "雾灯", "offset": "0", "kb_id": "1"}]}
    task, _ = prepared(kb, tmp_path / "run")
    with pytest.raises(RecordError, match="the text has"):
        task.read(line)
    data = write_lines(tmp_path / "bad.jsonl", [line])
    done = nlpkit(
        "train",
        "entity_linking",
        "--data",
        data,
        "--dev",
        data,
        f"--set=entity_linking.kb={kb}",
        check=False,
    )
    assert done.returncode == 3
    assert b'bad.jsonl:1: mention_data[0]: the text has "\xe7\x9c\x8b' in done.stderr


@pytest.mark.parametrize(
    "setting", ["negatives=-1", "hide=1.0", "threshold=0.5", "max_description=3", "choices=0"]
)
def test_settings_that_cannot_be_are_refused(setting):
    done = nlpkit(
        "train", "entity_linking", "--data", "x", f"--set=entity_linking.{setting}", check=False
    )
    assert done.returncode == 2
    assert setting.split("=")[0].encode() in done.stderr


def test_made_up_data_trains_and_predicts_through_a_pipe(tmp_path):
    write_lines(tmp_path / "data.jsonl", samples.records("entity_linking", 60, seed=1))
    (tmp_path / "kb.jsonl").write_text(
        "\n".join(sample.knowledge_base(60, 1)) + "\n", encoding="utf-8"
    )
    files = ["--data", tmp_path / "data.jsonl", "--out", tmp_path / "run"]
    nlpkit(
        "train",
        "entity_linking",
        *files,
        f"--set=entity_linking.kb={tmp_path / 'kb.jsonl'}",
        "--epochs",
        1,
        *SMALL_FLAGS,
    )
    assert json.loads((tmp_path / "run" / "config.json").read_text())["prepared"]["kb_sha256"]
    done = nlpkit("predict", tmp_path / "run", stdin='{"text": "你好", "id": 12}\n'.encode())
    assert json.loads(done.stdout) == {"text": "你好", "id": 12, "prediction": {"mentions": []}}


def test_made_up_names_mean_what_the_knowledge_base_has():
    named, entities = sample.base()
    assert len({entity["subject_id"] for entity in entities}) == len(entities)
    names = {entity["subject_id"]: entity["subject"] for entity in entities}
    records = list(samples.records("entity_linking", 500, seed=5))
    for record in records:
        for mention in record["mentions"]:
            string = record["text"][mention["start"] : mention["end"]]
            assert mention["entity"] is None or names[mention["entity"]] == string
    assert 0.03 < np.mean([m["entity"] is None for r in records for m in r["mentions"]]) < 0.25
    assert sum(len(each.ids) > 1 for each in named) >= len(named) / 2
