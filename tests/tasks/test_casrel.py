"""CasRel: labels by hand, loss and decoding against plain loops, silence that is not "no"."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from nlpkit import encoders
from nlpkit.encoders.base import encode
from nlpkit.errors import DataError
from nlpkit.tasks.casrel.model import AT_FIRST, OBJECT_POWER, SUBJECT_POWER
from nlpkit.tasks.casrel.task import Task

SIZES = {"hidden_size": 32, "dilations": (1,), "lstm_layers": 1, "lstm_size": 16}
STILL = {"dropout": 0.0, "embedding_dropout": 0.0, "hide_word": 0.0, "hide_character": 0.0}
TEXTS = ["甲乙丙", "", "云岭ab", "甲"]


@pytest.fixture(params=["norm", "gate"])
def parts(request, tmp_path):
    """A task with predicates p and q, and a model whose pointers are sure of themselves."""
    torch.manual_seed(3)
    records = [("x:1", {"text": "", "spo_list": [["a", "p", "b"], ["a", "q", "b"]]})]
    encoder, tokenizer = encoders.load("dgcnn", encoders.settings_of("dgcnn")(**SIZES, **STILL))
    config = Task.prepare(Task.Config(condition=request.param), records, tmp_path)
    task = Task(config, tokenizer, tmp_path)
    model = task.build_model(encoder).eval()
    with torch.no_grad():
        for pointer in (model.subject, model.object):
            pointer.weight.mul_(6)
            pointer.bias.zero_()
        if model.norm is not None:
            model.norm.gain_HC.normal_(std=0.3)
    return task, model


def test_all_occurrences_are_labelled(parts):
    task, _ = parts
    triples = [["甲", "p", "乙"], ["甲", "q", "乙甲"]]
    example = task.read({"text": "甲乙甲", "spo_list": triples})
    expected = {(0, 2, 2), (1, 2, 3)}
    assert task.labels(example.encoding, example.gold.spo_list) == {
        (1, 2): expected,
        (3, 4): expected,
    }
    batch = task.collate([example])
    assert batch.subjects_M3.tolist() == [[0, 1, 1], [0, 3, 3]]
    assert batch.objects_N4.tolist()[:4] == [[0, 0, 0, 2], [0, 0, 1, 2], [0, 1, 0, 2], [0, 1, 1, 3]]


def p_of(logit, power):
    return (1 / (1 + math.exp(-float(logit)))) ** power


def cross_entropy(p, is_wanted):
    return -math.log(p if is_wanted else 1 - p)


def objects_of(model, hidden_TH, first, last):
    """logits_PT2 of one subject, alone."""
    with torch.no_grad():
        return model.objects(hidden_TH[None], torch.tensor([[0, first, last]]))[0]


@torch.no_grad()
def test_the_loss_is_that_of_plain_loops(parts):
    task, model = parts
    records = [
        {"text": "甲乙丙丁", "spo_list": [["甲", "p", "乙"], ["丙丁", "q", "乙"]]},
        {"text": "云岭", "spo_list": []},
        {"text": "甲在云岭", "spo_list": [["甲", "q", "云岭"]], "predicates": ["q"]},
    ]
    examples = [task.read(record) for record in records]
    losses = model(task.collate(examples)).tolist()
    for example, loss in zip(examples, losses, strict=True):
        hidden_TH = encode(model.encoder, task.tokenizer.collate([example.encoding]))[0]
        length = len(example.encoding) - 2
        labels = task.labels(example.encoding, example.gold.spo_list)
        complete = example.annotated is None
        entity = set()
        for (first, end), cells in labels.items():
            entity |= set(range(first, end))
            for _, o_first, o_last in cells:
                entity |= set(range(o_first, o_last + 1))
        total = 0.0
        for place in range(1, length + 1):
            start, end = (p_of(x, SUBJECT_POWER) for x in model.subject(hidden_TH)[place])
            if complete or place in entity:
                is_start = any(first == place for first, _ in labels)
                is_end = any(end_ - 1 == place for _, end_ in labels)
                total += (cross_entropy(start, is_start) + cross_entropy(end, is_end)) / 2
        for (first, end), cells in labels.items():
            logits_PT2 = objects_of(model, hidden_TH, first, end - 1)
            for number, predicate in enumerate(task.predicates):
                if not complete and predicate not in example.annotated:
                    continue
                for place in range(1, length + 1):
                    for side in (0, 1):
                        p = p_of(logits_PT2[number, place, side], OBJECT_POWER)
                        is_wanted = any(c[0] == number and c[1 + side] == place for c in cells)
                        total += cross_entropy(p, is_wanted) / 2 / len(labels)
        assert loss == pytest.approx(total / length, rel=1e-4)


def logit(p):
    return math.log(p) - math.log(1 - p)


def span_at(start, end, first, length):
    """(last, score) from a first token: the nearest last one, or else the best."""
    later = range(first, length + 1)
    nearest = [j for j in later if end[j] > 0]
    last = nearest[0] if nearest else max(later, key=lambda j: end[j])
    return last, min(start[first], end[last])


@torch.no_grad()
def brute_force(task, model, text, threshold):
    """{triple: score} by loops over everything."""
    encoding = task.tokenizer.encode(text)
    hidden_TH = encode(model.encoder, task.tokenizer.collate([encoding]))[0]
    length = len(encoding) - 2
    sides = [[logit(p_of(x, SUBJECT_POWER)) for x in row] for row in model.subject(hidden_TH).T]
    found = {}
    for first in range(1, length + 1):
        last, score = span_at(*sides, first, length)
        if score <= threshold:
            continue
        logits_PT2 = objects_of(model, hidden_TH, first, last)
        for number, predicate in enumerate(task.predicates):
            ends = [[logit(p_of(x, OBJECT_POWER)) for x in row] for row in logits_PT2[number].T]
            for o_first in range(1, length + 1):
                o_last, o_score = span_at(*ends, o_first, length)
                if min(score, o_score) > threshold:
                    subject = text[slice(*encoding.char_span((first, last + 1)))]
                    object_ = text[slice(*encoding.char_span((o_first, o_last + 1)))]
                    key = subject, predicate, object_
                    found[key] = max(found.get(key, -1e9), min(score, o_score))
    return found


@pytest.mark.parametrize("threshold", [-3.0, -1.0])
def test_decoding_finds_what_brute_force_finds(parts, threshold, monkeypatch):
    task, model = parts
    task.config = replace(task.config, threshold=threshold)
    expected = [brute_force(task, model, text, threshold) for text in TEXTS]
    batch = task.collate([task.read({"text": text}) for text in TEXTS], targets=False)
    for at_once in (1 << 22, 1):
        monkeypatch.setattr("nlpkit.tasks.casrel.model.SCORES_AT_ONCE", at_once)
        with torch.no_grad():
            predictions = task.decode(model, batch)
        found = [{t.key: t.score for t in prediction.spo_list} for prediction in predictions]
        assert any(expected)
        for mine, theirs in zip(found, expected, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-3)


def test_loose_decoding_of_an_untrained_model_has_bounds(parts):
    task, model = parts
    torch.nn.init.zeros_(model.subject.weight)
    torch.nn.init.zeros_(model.object.weight)
    batch = task.collate([task.read({"text": "字" * 200})], targets=False)
    with torch.no_grad():
        places = list(model.triples(batch, -5.0, loose=True))
    assert len(places) > 0
    assert len({place.subject for place in places}) <= 200


def test_what_a_line_was_not_annotated_for_costs_nothing(parts):
    task, model = parts
    record = {"text": "甲在云岭", "spo_list": [["甲", "q", "云岭"]], "predicates": ["q"]}
    batch = task.collate([task.read(record)])
    model(batch).sum().backward()
    gradient_PX = model.object.weight.grad.unflatten(0, (2, 2)).flatten(1)
    assert task.predicates == ["p", "q"]
    assert gradient_PX[0].abs().sum() == 0
    assert gradient_PX[1].abs().sum() > 0


PRIOR = [
    {"text": "甲生乙", "spo_list": [["甲", "p", "乙"]]},
    {"text": "乙是甲的", "spo_list": [["甲", "p", "乙"]]},
    {"text": "甲有丙丁", "spo_list": [["甲", "q", "丙丁"]]},
]


def prior_task(tmp_path, records):
    encoder, tokenizer = encoders.load("dgcnn", encoders.settings_of("dgcnn")(**SIZES, **STILL))
    pairs = [(f"x:{number}", record) for number, record in enumerate(records, 1)]
    config = Task.prepare(Task.Config(prior=True), pairs, tmp_path)
    task = Task(config, tokenizer, tmp_path)
    return task, task.build_model(encoder).eval()


def cells(task, example):
    return task.collate([example]).prior_BTX[0].nonzero().tolist()


def test_triples_of_other_texts_are_features(tmp_path):
    task, _ = prior_task(tmp_path, PRIOR)
    # of p, stated twice, and of q, stated elsewhere: subject, then predicates p and q
    expected = [[1, 0], [1, 1], [2, 2], [2, 3], [3, 4], [4, 5]]
    assert cells(task, task.read({"text": "甲乙丙丁"})) == expected
    assert cells(task, task.read({"text": "丙丁乙"})) == []


def test_what_only_this_text_states_is_no_feature_of_it(tmp_path):
    task, _ = prior_task(tmp_path, PRIOR)
    assert cells(task, task.read(PRIOR[2])) == []
    assert cells(task, task.read(PRIOR[0])) == [[1, 0], [1, 1], [3, 2], [3, 3]]


def test_a_text_with_strings_replaced_is_still_the_one_it_was(tmp_path):
    records = [*PRIOR, {"text": "戊有己和庚", "spo_list": [["戊", "q", "己"], ["戊", "q", "庚"]]}]
    task, _ = prior_task(tmp_path, records)
    task.config = replace(task.config, replace=1.0)
    examples = [task.read(record) for record in records]
    augment = task.augmenter(examples)
    random = np.random.default_rng(1)
    for _ in range(20):
        augmented = augment(examples[3], random)
        assert augmented.origin == examples[3].origin
        by_hand = task.read({"text": augmented.encoding.text})
        own = {("戊", "己"), ("戊", "庚")}
        text = augmented.encoding.text
        kept = [pair for pair in own if all(string in text for string in pair)]
        if kept and text != "戊有己和庚":
            assert len(cells(task, augmented)) < len(cells(task, by_hand))


def test_features_start_without_effect_and_then_have_one(tmp_path):
    task, model = prior_task(tmp_path, PRIOR)
    batch = task.collate([task.read({"text": "甲乙丙丁"})])
    with torch.no_grad():
        plain = encode(model.encoder, batch.tokens)
        assert torch.equal(model.encoded(batch), plain)
        model.prior.weight.fill_(0.5)
        changed_BT = (model.encoded(batch) != plain).any(2)
    assert changed_BT[0].tolist()[:6] == [False, True, True, True, True, False]


def test_a_bad_triple_is_named_before_it_is_kept(tmp_path):
    bad = {"text": "甲", "spo_list": [["甲", "p"]]}
    with pytest.raises(DataError, match="x:2: spo_list"):
        prior_task(tmp_path, [PRIOR[0], bad])
    assert not (tmp_path / "prior.json").exists()


def test_an_untrained_model_finds_next_to_nothing(tmp_path):
    task, model = prior_task(tmp_path, PRIOR)
    for layer, power in ((model.subject, SUBJECT_POWER), (model.object, OBJECT_POWER)):
        p = [p_of(logit, power) for logit in layer.bias.tolist()]
        assert p == pytest.approx([AT_FIRST] * len(p), rel=1e-4)
