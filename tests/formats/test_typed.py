"""Predictions from files: what has a wrong type is refused by the name of its field."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit import encoders, samples, tasks
from nlpkit.errors import RecordError
from nlpkit.formats.typed import read_dataclass

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("中a1", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=6,
)


@dataclass(frozen=True)
class Part:
    start: int
    end: int
    text: str = ""


@dataclass(frozen=True)
class Whole:
    name: str
    score: float | None = None
    span: tuple[int, int] | None = None
    parts: list[Part] = field(default_factory=list)


def test_a_whole_object_is_read_and_what_it_does_not_know_left_out():
    value = {"name": "中", "score": 1, "span": [0, 2], "parts": [{"start": 1, "end": 2}], "x": []}
    assert read_dataclass(Whole, value) == Whole("中", 1, (0, 2), [Part(1, 2)])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([], "expected an object, got []"),
        ({}, 'missing field "name"'),
        ({"name": 5}, 'field "name": expected a string, got 5'),
        ({"name": "", "score": True}, 'field "score": expected a number, got True'),
        ({"name": "", "score": float("nan")}, 'field "score": expected a number, got nan'),
        ({"name": "", "score": 10**400}, 'field "score": expected a number, got '),
        ({"name": "", "span": [1]}, 'field "span": expected [start, end], got [1]'),
        ({"name": "", "span": [2, 2]}, 'field "span": expected a span with 0 <= start < end'),
        ({"name": "", "span": [0, 1.0]}, 'field "span[1]": expected a whole number, got 1.0'),
        ({"name": "", "parts": {}}, 'field "parts": expected a list, got {}'),
        ({"name": "", "parts": [{"start": 0}]}, 'missing field "parts[0].end"'),
        ({"name": "", "parts": [{"start": 3, "end": 1}]}, 'field "parts[0]": expected a span'),
        ({"name": "", "parts": [{"start": 0, "end": 10**5000}]}, 'field "parts[0].end": expected'),
    ],
)
def test_a_wrong_type_names_its_field(value, why):
    with pytest.raises(RecordError) as caught:
        read_dataclass(Whole, value)
    assert why in caught.value.message
    assert len(caught.value.message) < 200


PREDICTIONS = {
    "ape210k": {
        "equation": "1",
        "answer": "1",
        "beams": [{"equation": "1", "answer": "1", "score": -1}],
    },
    "classification": {"label": "a", "candidates": [{"label": "a", "score": 0.5}]},
    "cln": {"texts": ["山"], "scores": [-1.0]},
    "entity_linking": {"mentions": [{"start": 0, "end": 1, "text": "山", "entity": None}]},
    "fill_mask": {"text": "山", "masks": [{"start": 0, "end": 1, "token": "山"}]},
    "gplinker": {
        "spo_list": [{"subject": "a", "predicate": "b", "object": "c", "subject_span": [0, 1]}]
    },
    "kgclue": {"subject": "a", "meaning": "", "predicate": "b", "objects": ["c"], "beams": []},
    "mrc_mlm": {"answer": "a", "span": [0, 1], "alternatives": [{"answer": "b"}]},
    "mrc_seq2seq": {"answer": "a", "span": [0, 1], "alternatives": [{"answer": "b"}]},
    "ner": {"entities": [{"start": 0, "end": 1, "label": "a", "score": 1.5}]},
}


def places(value, path=()):
    """Every place inside a value, as the keys that lead to it."""
    yield path
    inside = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in inside:
        yield from places(inner, (*path, key))


def put(value, path, new):
    """The value with something else at a place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("name", sorted(PREDICTIONS))
@given(data=st.data())
def test_a_prediction_of_any_task_is_read_or_refused_and_then_scored(name, data):
    """Something of a wrong kind at any place: a RecordError, or a prediction that scores."""
    task_class = tasks.load(name)
    task = task_class(task_class.Config(), encoders.load_tokenizer("tiny"), None)
    whole = task.parse(PREDICTIONS[name])
    path = data.draw(st.sampled_from(list(places(PREDICTIONS[name]))[1:]))
    new = data.draw(JSON | st.sampled_from([10**400, -1, 2.5, [[[[]]]], {"a": 1}]))
    try:
        prediction = task.parse(put(PREDICTIONS[name], path, new))
    except RecordError:
        return
    gold = task.read(next(iter(samples.records(name, 1, seed=1)))).gold
    for one in (whole, prediction):
        task.facts(one)
        task.score([(gold, one)])
