"""Made-up data: the same bytes for a seed, gold that is exact and complete, names that held-out
lines do not repeat."""

from __future__ import annotations

import re
import sys

import orjson
import pytest

from nlpkit import samples
from nlpkit.errors import SettingsError
from nlpkit.samples import ape210k, gplinker, ner
from nlpkit.tasks.ape210k.arithmetic import evaluate
from nlpkit.tasks.ape210k.numbers import find_numbers

COUNT = 1500

TRIGGERS = {
    "执导": "导演",
    "主演": "主演",
    "演唱": "歌手",
    "著有": "作者",
    "写": "作者",
    "毕业": "毕业院校",
    "总部": "总部地点",
    "成立": "成立日期",
    "创始人": "创始人",
    "创办": "创始人",
    "出生地": "出生地",
    "父": "父亲",
    "妻子": "妻子",
    "丈夫": "丈夫",
}
"""Words that state a relation -> the relation."""


def test_samples_has_the_two_tasks():
    assert {"gplinker", "ner"} <= set(samples.tasks())


@pytest.mark.parametrize("task", samples.tasks())
def test_a_seed_gives_the_same_bytes_and_another_seed_another_world(task):
    first, again, other = (
        orjson.dumps(list(samples.records(task, 50, seed))) for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_a_shorter_run_is_the_start_of_a_longer_one():
    assert list(samples.records("ner", 5, 0)) == list(samples.records("ner", 20, 0))[:5]


def test_an_unknown_task_is_a_settings_error_with_a_near_miss():
    with pytest.raises(SettingsError, match='"gp-linker"; did you mean "gplinker"') as caught:
        samples.records("gp-linker", 1, 0)
    assert "ner" in caught.value.hint


def test_dash_and_underscore_are_the_same(monkeypatch):
    monkeypatch.setattr(samples, "tasks", lambda: ["two_words"])
    monkeypatch.setitem(sys.modules, "nlpkit.samples.two_words", ner)
    assert list(samples.records("two-words", 3, 0)) == list(ner.records(3, 0))


@pytest.mark.parametrize("task", ["gplinker", "ner"])
def test_texts_are_of_moderate_length_and_have_no_open_holes(task):
    texts = [record["text"] for record in samples.records(task, COUNT, 0)]
    assert all(15 <= len(text) <= 120 for text in texts)
    assert not [text for text in texts if re.search(r"[<>\[\]|]", text)]
    assert len(set(texts)) > 0.98 * COUNT


def test_every_subject_and_object_occurs_and_has_the_types_of_its_relation():
    for record in gplinker.records(COUNT, 0):
        for triple in record["spo_list"]:
            assert triple["subject"] in record["text"]
            assert triple["object"] in record["text"]
            assert (triple["subject_type"], triple["object_type"]) == gplinker.RELATIONS[
                triple["predicate"]
            ]


def test_a_text_that_words_a_relation_is_labelled_with_it():
    for record in gplinker.records(COUNT, 1):
        predicates = {triple["predicate"] for triple in record["spo_list"]}
        assert {
            relation for word, relation in TRIGGERS.items() if word in record["text"]
        } <= predicates, record


def test_spouses_are_stated_both_ways():
    for record in gplinker.records(COUNT, 2):
        triples = {
            (triple["subject"], triple["predicate"], triple["object"])
            for triple in record["spo_list"]
        }
        assert len(triples) == len(record["spo_list"])
        assert {
            (o, gplinker.INVERSE[p], s) for s, p, o in triples if p in gplinker.INVERSE
        } <= triples


def test_relation_data_has_all_relations_and_the_cases_that_show_a_mistake():
    records = list(gplinker.records(COUNT, 0))
    triples = [(record["text"], triple) for record in records for triple in record["spo_list"]]
    assert {triple["predicate"] for _, triple in triples} == set(gplinker.RELATIONS)
    assert sum(not record["spo_list"] for record in records) > COUNT / 30
    assert sum(text.count(triple["subject"]) > 1 for text, triple in triples) > COUNT / 30
    assert (
        sum(triple["object"] in triple["subject"] for _, triple in triples) > COUNT / 60
    )  # a firm named after its seat
    two_subjects = [r for r in records if _pairs_of(r, "作者") >= 2]
    assert len(two_subjects) > COUNT / 60


def _pairs_of(record, predicate):
    return len(
        {(t["subject"], t["object"]) for t in record["spo_list"] if t["predicate"] == predicate}
    )


def test_spans_are_sorted_disjoint_and_hold_names():
    brackets = {"书名": "《》", "影视": "《》"}
    for record in ner.records(COUNT, 0):
        text, entities = record["text"], record["entities"]
        ends = [0] + [entity["end"] for entity in entities]
        assert all(
            end <= entity["start"] < entity["end"]
            for end, entity in zip(ends, entities, strict=False)
        )
        for entity in entities:
            assert entity["end"] <= len(text)
            if entity["label"] in brackets:
                assert text[entity["start"] - 1] + text[entity["end"]] == brackets[entity["label"]]


def test_every_occurrence_of_an_entity_is_labelled_or_lies_inside_a_longer_name():
    for record in ner.records(COUNT, 1):
        spans = {(entity["start"], entity["end"]) for entity in record["entities"]}
        for start, end in spans:
            name = record["text"][start:end]
            for match in re.finditer(re.escape(name), record["text"]):
                inside = any(s <= match.start() and match.end() <= e for s, e in spans)
                assert inside or re.match(r".{0,4}(大学|学院)", record["text"][match.end() :]), (
                    record
                )


def test_all_labels_occur():
    labels = {entity["label"] for record in ner.records(COUNT, 0) for entity in record["entities"]}
    assert labels == set(ner.LABELS.values())


def test_problems_have_positive_answers_and_numbers_that_differ():
    records = list(ape210k.records(COUNT, 0))
    for record in records:
        assert evaluate(record["equation"]) == evaluate(record["answer"]) > 0
        values = [number.value for _, number in find_numbers(record["text"])]
        assert len(set(values)) == len(values) > 0
        assert 15 <= len(record["text"]) <= 120
        assert not re.search(r"[<>\[\]|{}]", record["text"])
    assert len({record["text"] for record in records}) == COUNT
    assert len({re.sub(r"[\d.]+", "", record["equation"]) for record in records}) > 15


@pytest.mark.parametrize("task", ["gplinker", "ner"])
def test_held_out_names_are_mostly_new(task):
    records = list(samples.records(task, COUNT, 0))
    known, new = (set().union(*map(_names, part)) for part in (records[:1000], records[1000:]))
    assert len(new - known) > 0.8 * len(new)


def _names(record):
    if "spo_list" in record:
        return {triple[side] for triple in record["spo_list"] for side in ("subject", "object")}
    return {record["text"][entity["start"] : entity["end"]] for entity in record["entities"]}
