"""Kinds of errors, and the calibration of scores, against cases made by hand."""

import json

import numpy as np
import pytest
from conftest import nlpkit, write_lines

from nlpkit.evaluation.calibration import Scored, calibration, probabilities, scored_facts
from nlpkit.evaluation.error_kinds import errors_of
from nlpkit.evaluation.systems import Asked, read_systems


def kinds(gold, predicted, group):
    return [error["kind"] for error in errors_of(gold, predicted, group)]


def labelled(*facts):
    return {fact: fact[0] for fact in facts}


def triples(*facts):
    return {fact: fact[1] for fact in facts}


def test_entities():
    gold = labelled(("name", 0, 3), ("address", 4, 7), ("book", 8, 12), ("game", 20, 24))
    found = labelled(("name", 0, 3), ("scene", 4, 7), ("book", 9, 12), ("name", 30, 33))
    assert errors_of(gold, found, "label") == [
        {"kind": "wrong type", "gold": ("address", 4, 7), "predicted": ("scene", 4, 7)},
        {"kind": "wrong span", "gold": ("book", 8, 12), "predicted": ("book", 9, 12)},
        {"kind": "missed", "gold": ("game", 20, 24)},
        {"kind": "extra", "predicted": ("name", 30, 33)},
    ]


def test_spans_that_only_touch_do_not_overlap():
    assert kinds(labelled(("a", 0, 3)), labelled(("a", 3, 5)), "label") == ["missed", "extra"]


def test_a_fact_belongs_to_one_error():
    gold = labelled(("a", 0, 3))
    found = labelled(("b", 0, 3), ("c", 0, 3))
    assert kinds(gold, found, "label") == ["wrong type", "extra"]


def test_triples():
    gold = triples(("长河", "作者", "沈从文"), ("长河", "出版社", "开明书店"))
    assert kinds(gold, triples(("长河", "主角", "沈从文")), "predicate") == [
        "wrong relation",
        "missed",
    ]
    assert kinds(gold, triples(("长河", "作者", "沈从")), "predicate") == ["wrong span", "missed"]
    assert kinds(gold, triples(("边城", "作者", "沈从文")), "predicate") == [
        "missed",
        "missed",
        "extra",
    ]


def test_tokens_in_the_place_of_strings_are_no_spans():
    """Under `match = "tokens"` numbers are the tokens of a string."""
    assert kinds({("a", 5, 9, 7): "a"}, {("a", 6, 9, 7): "a"}, "label") == ["missed", "extra"]


def test_a_label_and_a_linked_entity():
    assert kinds({"好评": "好评"}, {"差评": "差评"}, "label") == ["wrong type"]
    assert kinds({(0, 2, "7"): "unique"}, {(0, 2, "8"): "unique"}, "kind") == ["wrong type"]
    assert kinds({(0, 2, "7"): "unique"}, {(0, 3, "7"): "unique"}, "kind") == ["wrong span"]


def test_answers_are_missed_and_extra():
    assert kinds({"9": "1"}, {"12": "2"}, "operators") == ["missed", "extra"]
    assert kinds({}, {}, "label") == []


def test_what_counts_as_a_probability():
    assert probabilities(np.array([0.2, 1.0])).tolist() == [0.2, 1.0]
    assert probabilities(np.array([0.0, -np.log(2)])) == pytest.approx([1.0, 0.5])
    assert probabilities(np.array([0.0, np.log(3)])) == pytest.approx([0.5, 0.75])


def test_bins_and_expected_error():
    facts = [Scored(0.6, True), Scored(0.6, False), Scored(0.9, True), Scored(0.9, True)]
    found = calibration(facts, bins=2)
    assert [b["right"] for b in found["bins"]] == [0.5, 1.0]
    assert found["expected_error"] == pytest.approx(0.1)
    assert calibration([]) == {}


def test_scores_of_items(tmp_path):
    entities = [{"start": 0, "end": 1, "label": "a"}]
    found = [{**entities[0], "score": 2.5}, {"start": 1, "end": 2, "label": "a", "score": 1.0}]
    line = {"text": "云泽", "entities": entities, "prediction": {"entities": found}}
    file = write_lines(tmp_path / "p.jsonl", [line] * 4)
    (system,) = read_systems([file], Asked(task="ner"))
    gold, prediction = system.seeds[0][0]
    assert scored_facts(system.task, gold, prediction) == [Scored(2.5, True), Scored(1.0, False)]
    errors = tmp_path / "errors.jsonl"
    done = nlpkit("eval", "--task", "ner", "--data", file, "--calibration", "--errors", errors)
    metrics = json.loads(done.stdout)
    assert sum(b["facts"] for b in metrics["calibration"]["bins"]) == 8
    written = json.loads(errors.read_bytes().splitlines()[0])
    assert written["errors"] == [{"kind": "extra", "predicted": ["a", 1, 2]}]
    assert (written["missed"], written["extra"]) == ([], [["a", 1, 2]])
