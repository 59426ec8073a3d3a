"""Similarity: what lines may hold, each loss on its data, the knowledge base, long texts."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from conftest import nlpkit, write_lines

from nlpkit import encoders, samples
from nlpkit.errors import DataError, RecordError, SettingsError
from nlpkit.inference.predictor import predict_examples
from nlpkit.tasks.similarity import Task
from nlpkit.tasks.similarity.examples import Found, Pair, Vector, VectorPair
from nlpkit.tasks.similarity.knowledge_base import open_sentences, read_sentences

LABELS = [
    {"text_a": "怎么借书", "text_b": "如何借书", "label": 1},
    {"text_a": "几点开门", "text_b": "什么时候开门", "label": 1},
    {"text_a": "怎么借书", "text_b": "几点开门", "label": 0},
    {"text_a": "丢了书怎么办", "text_b": "什么时候开门", "label": 0},
]
GRADES = [{**record, "label": grade} for record, grade in zip(LABELS, (5, 4.5, 0, 1), strict=True)]
GROUPS = [
    {"text": text, "group": group}
    for group, texts in {"借": ["怎么借书", "如何借书"], "门": ["几点开门", "门何时开"]}.items()
    for text in texts
]
SMALL = {"start": "random", "character_size": 16, "gru_size": 16}
STILL = {"dropout": 0.0, "embedding_dropout": 0.0}


def numbered(records):
    return [(f"x:{number}", record) for number, record in enumerate(records, 1)]


def made(records, folder, **settings):
    """(task, model) with a small encoder."""
    torch.manual_seed(0)
    encoder, tokenizer = encoders.load("gru", encoders.settings_of("gru")(**SMALL, **STILL))
    config = Task.prepare(Task.Config(**settings), numbered(records), folder)
    task = Task(config, tokenizer, folder)
    return task, task.build_model(encoder)


@pytest.mark.parametrize(
    ("records", "kind", "loss", "monitor"),
    [
        (LABELS, "labels", "cosent", "accuracy"),
        (GRADES, "grades", "cosent", "spearman"),
        (GROUPS, "groups", "contrastive", "mrr"),
    ],
)
def test_the_data_chooses_loss_and_metric(records, kind, loss, monitor, tmp_path):
    task, _ = made(records, tmp_path)
    assert (task.config.kind, task.config.loss, task.monitor) == (kind, loss, monitor)
    assert task.couples_examples
    assert task.tunes == (kind == "labels")


@pytest.mark.parametrize(
    ("records", "settings"),
    [
        (LABELS, {}),
        (LABELS, {"loss": "contrastive"}),
        (GRADES, {}),
        (GRADES, {"pooling": "cls"}),
        (GROUPS, {}),
        (GROUPS, {"loss": "am_softmax"}),
        (GROUPS, {"loss": "softmax"}),
    ],
    ids=str,
)
def test_every_loss_learns_its_data_by_heart(records, settings, tmp_path):
    task, model = made(records, tmp_path, **settings)
    examples = [task.read(record) for record in records]
    augment = task.augmenter(examples)
    random = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        seen = [augment(example, random) if augment else example for example in examples]
        loss = model.train()(task.collate(seen)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    predictions = predict_examples(task, model, examples)
    known = [(example.gold, p) for example, p in zip(examples, predictions, strict=True)]
    task.config = task.tune(known)
    known = [(gold, task.cut(p, task.config)) for gold, p in known]
    assert task.score(known)[task.monitor] > 0.999


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (
            {"text_a": "甲", "text_b": " ", "label": 1},
            'field "text_b": expected a sentence, got an',
        ),
        ({"text_a": "甲"}, 'missing field "text_b"'),
        ({"text_a": "甲", "text_b": 3}, 'field "text_b": expected a string, got 3'),
        ({"text_a": "甲", "text_b": "乙", "label": "gut"}, "a grade, which is a number, got 'gut'"),
        ({"text_a": "甲", "text_b": "乙", "label": True}, "a grade, which is a number, got True"),
        ({"text_a": "甲", "text_b": "乙", "text": "丙"}, '"text_a" and "text_b": got both'),
        ({"text": "甲", "group": []}, 'field "group": expected a string or a whole number'),
    ],
)
def test_a_bad_line_names_its_field(record, says, tmp_path):
    task, _ = made(GROUPS, tmp_path)
    with pytest.raises(RecordError) as caught:
        task.read(record)
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([*GROUPS, LABELS[0]], "x:5: expected a text with a group, as at x:1, got a pair"),
        ([*LABELS, GROUPS[0]], "x:5: expected a pair, as at x:1, got a text with a group"),
        ([*GROUPS, {"text": "甲", "group": "七"}], 'x:5: group "七" has this text alone: expected'),
        ([{"text": "甲"}], "no line has a label or a group"),
        ([*LABELS, {**LABELS[0], "label": "3"}], 'x:5: field "label": expected 0, 1 or a grade'),
    ],
)
def test_data_that_does_not_fit_together_is_refused(records, says, tmp_path):
    with pytest.raises(DataError) as caught:
        made(records, tmp_path)
    assert caught.value.message.startswith(says)


def test_the_command_names_file_and_line(tmp_path):
    data = write_lines(tmp_path / "mixed.jsonl", [*LABELS, GROUPS[0]])
    dev = write_lines(tmp_path / "dev.jsonl", LABELS)
    train = ("train", "similarity", "--encoder", "gru", "--out", tmp_path / "run")
    done = nlpkit(*train, "--data", data, "--dev", dev, check=False)
    assert done.returncode == 3
    assert f"{data}:5: expected a pair, as at {data}:1" in done.stderr.decode()
    mixed = nlpkit(*train, "--data", dev, "--dev", data, check=False)
    assert f"{data}:5: expected pairs with labels 0 and 1, got texts" in mixed.stderr.decode()
    assert "hint: " in mixed.stderr.decode()


def test_a_loss_for_other_data_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="of pairs with grades: expected cosent, got contrast"):
        made(GRADES, tmp_path, loss="contrastive")
    with pytest.raises(SettingsError, match="expected contrastive or am_softmax or softmax"):
        made(GROUPS, tmp_path, loss="cosent")


def test_a_mixed_stream_is_predicted_line_by_line(tmp_path):
    task, model = made(LABELS, tmp_path)
    records = [LABELS[0], {"text": "几点开门"}, LABELS[2]]
    examples = [task.read(record) for record in records]
    first, second, third = predict_examples(task, model.eval(), examples)
    assert isinstance(first, Pair)
    assert first.label in (0, 1)
    assert isinstance(second, Vector)
    assert np.linalg.norm(second.vector) == pytest.approx(1, abs=1e-4)
    assert first != third
    task.config = replace(task.config, output="vector")
    (pair, alone) = predict_examples(task, model, examples[:2])
    assert isinstance(pair, VectorPair)
    assert np.dot(pair.vector_a, pair.vector_b) == pytest.approx(first.score, abs=1e-4)
    assert alone == second


def test_a_long_text_is_cut_and_its_windows_joined(tmp_path):
    kb = write_lines(tmp_path / "kb.jsonl", GROUPS)
    task, model = made(GROUPS, tmp_path, kb=str(kb), max_length=8, nearest=3)
    model.eval()
    long = task.read({"text": "怎么借书几点开门" * 3})
    assert len(task.windows(long)) > 2
    (found,) = predict_examples(task, model, [long])
    scores = [one.score for one in found.nearest]
    assert len(found.nearest) == 3
    assert scores == sorted(scores, reverse=True)
    pair = task.read({"text_a": "怎么借书几点开门" * 3, "text_b": "如何借书"})
    assert all(window.encodings[1].text == "如何借书" for window in task.windows(pair))
    (compared,) = predict_examples(task, model, [pair])
    assert -1 <= compared.score <= 1
    task.config = replace(task.config, output="vector")
    (vector,) = predict_examples(task, model, [long])
    assert np.linalg.norm(vector.vector) == pytest.approx(1, abs=1e-4)


def test_the_partner_of_a_text_is_another_of_its_group(tmp_path):
    task, _ = made(GROUPS, tmp_path, loss="contrastive")
    examples = [task.read(record) for record in GROUPS]
    augment = task.augmenter(examples)
    random = np.random.default_rng(0)
    partners = [augment(example, random).partner.text for example in examples]
    assert partners == ["如何借书", "怎么借书", "门何时开", "几点开门"]
    batch = task.collate([augment(example, random) for example in examples])
    numbers = batch.numbers_BK
    assert torch.equal(numbers[:, 1], numbers[:, 2])
    assert len(set(numbers[:, 1].tolist())) == 2
    assert batch.texts == (2, 2, 2, 2)
    assert (
        task.collate(examples[:1])
        .tokens.token_ids_BT[0]
        .equal(task.collate(examples[:1]).tokens.token_ids_BT[1])
    )


def test_a_knowledge_base_is_lines_of_text_or_of_json(tmp_path):
    plain = tmp_path / "kb.txt"
    plain.write_text("怎么借书\n几点开门\n", encoding="utf-8")
    found = read_sentences(plain)
    assert found.texts == ["怎么借书", "几点开门"]
    assert not found.has_groups
    lines = write_lines(tmp_path / "kb.jsonl", [{"text": "怎么借书", "group": 3, "x": 1}])
    assert read_sentences(lines).groups == ["3"]
    for content, says in (
        (b'{"text": ""}', '1: field "text": expected a sentence'),
        (b'{"text": "a"}\n[', "2: not valid JSON"),
        (b"", "the knowledge base has no sentences"),
        (b"\xff", "1: not UTF-8"),
    ):
        plain.write_bytes(content)
        with pytest.raises(DataError, match=says):
            read_sentences(plain)


def test_a_run_keeps_its_knowledge_base_and_refuses_another(tmp_path):
    kb = write_lines(tmp_path / "given.jsonl", GROUPS)
    task, _ = made(GROUPS, tmp_path, kb=str(kb))
    again = open_sentences(task.config.kb, task.config.kb_sha256, tmp_path)
    assert again == task.kb
    write_lines(kb, GROUPS[:2])
    with pytest.raises(SettingsError, match="the knowledge base changed after training"):
        open_sentences(task.config.kb, task.config.kb_sha256, tmp_path)
    kb.unlink()
    assert open_sentences(task.config.kb, task.config.kb_sha256, tmp_path) == task.kb
    assert open_sentences("", None, tmp_path) == task.kb


def test_from_sample_to_neighbours(tmp_path):
    lines = list(samples.records("similarity", 120, seed=1))
    groups = [line["group"] for line in lines]
    assert all(groups.count(group) >= 2 for group in groups)
    data = write_lines(tmp_path / "data.jsonl", lines)
    kb = tmp_path / "kb.jsonl"
    kb.write_text("\n".join(samples.knowledge_base("similarity", 120, seed=1)), encoding="utf-8")
    run = tmp_path / "run"
    settings = [f"--set=encoder.{key}={value}" for key, value in SMALL.items()]
    train = ("train", "similarity", "--encoder=gru", "--data", data, "--out", run, "--epochs=1")
    nlpkit(*train, "--kb", kb, *settings)
    out = nlpkit("predict", run, stdin=json.dumps({"text": lines[0]["text"]}).encode())
    found = json.loads(out.stdout)["prediction"]
    assert len(found["nearest"]) == 10
    assert {"text", "score", "line", "group"} == found["nearest"][0].keys()
    scores = json.loads(nlpkit("eval", run, "--data", data).stdout)
    assert {"mrr", "recall_1", "recall_5", "recall_10"} <= scores.keys()
    vectors = nlpkit("predict", run, data, "--set=similarity.output=vector").stdout
    (tmp_path / "vectors.jsonl").write_bytes(vectors)
    of_file = nlpkit("eval", "--task=similarity", "--data", tmp_path / "vectors.jsonl").stdout
    alone = nlpkit("eval", run, "--data", data, "--set=similarity.output=vector").stdout
    assert json.loads(of_file)["mrr"] == json.loads(alone)["mrr"]
    check = json.loads(nlpkit("data", "check", "similarity", data).stdout.splitlines()[-1])
    assert check["unreadable"] == 0
    assert check["survives"] == 1


def test_gold_of_another_kind_needs_a_word(tmp_path):
    task, _ = made(GRADES, tmp_path)
    assert task.read(LABELS[0]).gold == Pair(label=1)
    with pytest.raises(RecordError, match="expected pairs with grades, got texts with groups") as e:
        task.read(GROUPS[0])
    assert "--set similarity.kind=groups" in e.value.hint
    task, _ = made(LABELS, tmp_path)
    with pytest.raises(RecordError, match="expected pairs with labels 0 and 1, got the label 4.5"):
        task.read(GRADES[1])


def test_predictions_read_back_and_state_what_can_be_wrong(tmp_path):
    task, _ = made(LABELS, tmp_path)
    for prediction in (
        Pair(0.5, 1.0),
        Found("借"),
        Vector([1.0, 0.0]),
        VectorPair([1.0], [1.0]),
    ):
        assert task.parse(json.loads(json.dumps(asdict(prediction)))) == prediction
    assert task.facts(Pair(0.5, 1.0)) == {"1": "1"}
    assert task.facts(Found("借")) == {"借": "借"}
    assert task.facts(Vector([1.0])) == task.facts(Pair(0.5)) == {}
    with pytest.raises(RecordError, match='missing field "score"'):
        task.parse({})
