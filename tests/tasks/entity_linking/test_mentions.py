"""Mentions: reading, choosing, scoring, and both thresholds tuned against enumeration."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.errors import RecordError
from nlpkit.tasks.entity_linking.mentions import (
    NEVER,
    Candidate,
    Mention,
    Prediction,
    apart,
    read_mentions,
    score_mentions,
    tune_mentions,
)

SCORES = st.integers(-4, 4).map(float)


def mention(start, entity, score=1.0, fit=None, end=None, choices=None):
    candidates = [] if fit is None else [Candidate(entity, "", fit)]
    end = start + 1 if end is None else end
    return Mention(start, end, "", entity, None, score, choices, candidates)


@st.composite
def pairs(draw):
    """Gold and loose predictions of some texts, some scores equal."""
    made = []
    for _ in range(draw(st.integers(1, 4))):
        places = draw(st.lists(st.integers(0, 5), unique=True, max_size=4))
        gold = [mention(p, draw(st.sampled_from(["a", "b", None]))) for p in places]
        found = [
            mention(p, "a", draw(SCORES), draw(st.none() | SCORES))
            for p in range(draw(st.integers(0, 5)))
        ]
        made.append((Prediction(gold), Prediction(found)))
    return made


def f1_at(pairs, threshold, nil_threshold):
    cut = [
        (
            gold,
            Prediction([m.decided(nil_threshold) for m in found.mentions if m.score > threshold]),
        )
        for gold, found in pairs
    ]
    return score_mentions(cut)["f1"]


@given(pairs())
def test_both_thresholds_are_the_best_of_all(pairs):
    places = [value + 0.5 for value in range(-6, 6)]
    best = max(f1_at(pairs, *both) for both in itertools.product(places, [NEVER, *places]))
    assert f1_at(pairs, *tune_mentions(pairs)) == pytest.approx(best, abs=1e-6)


def test_without_nil_in_gold_nothing_is_nil():
    gold, found = Prediction([mention(0, "a")]), Prediction([mention(0, "a", 1.0, -30.0)])
    assert tune_mentions([(gold, found)])[1] == NEVER


def test_metrics_by_hand():
    gold = Prediction(
        [mention(0, "a", choices=2), mention(2, "b", choices=2), mention(4, None), mention(6, "c")]
    )
    found = Prediction([mention(0, "a"), mention(2, "x"), mention(4, None), mention(8, None)])
    metrics = score_mentions([(gold, found)])
    assert (metrics["correct"], metrics["predicted"], metrics["gold"], metrics["f1"]) == (
        2,
        4,
        4,
        0.5,
    )
    assert (metrics["mention_precision"], metrics["mention_recall"]) == (0.75, 0.75)
    assert (metrics["ambiguous"], metrics["ambiguous_correct"], metrics["ambiguous_accuracy"]) == (
        2,
        1,
        0.5,
    )
    assert (metrics["nil_precision"], metrics["nil_recall"]) == (0.5, 1.0)
    assert metrics["match"] == "strict"


def test_of_overlapping_mentions_the_best_stays_and_of_equal_ones_the_longest():
    found = [
        mention(0, "a", 1.0, end=3),
        mention(2, "b", 2.0, end=4),
        mention(4, "c", 1.0),
        mention(3, "d", 1.5),
    ]
    assert [m.entity for m in apart(found)] == ["b", "c"]
    assert [
        m.entity for m in apart([mention(0, "short", 1.0), mention(0, "long", 1.0, end=2)])
    ] == ["long"]


def test_ccks_and_own_mentions_read_alike():
    text = "许蓁写了雾灯"
    ccks = {"mention_data": [{"mention": "雾灯", "offset": "4", "kb_id": "NIL_Work"}]}
    own = {"mentions": [{"start": 4, "end": 6, "text": "雾灯", "entity": None}]}
    assert read_mentions(ccks, text) == read_mentions(own, text) == [Mention(4, 6, "雾灯", None)]
    assert read_mentions({"text": text}, text) is None


BAD = [
    (
        {"mention_data": [{"mention": "灯", "offset": "4", "kb_id": "7"}]},
        'mention_data[0]: the text has "雾" at',
    ),
    (
        {"mention_data": [{"mention": "雾灯", "offset": "5", "kb_id": "7"}]},
        "[5, 7) is no span of the text of 6",
    ),
    ({"mention_data": [{"mention": "", "offset": "5", "kb_id": "7"}]}, "[5, 5) is no span"),
    (
        {"mention_data": [{"mention": "灯", "offset": "x", "kb_id": "7"}]},
        "offset: expected a number",
    ),
    (
        {"mention_data": [{"mention": "灯", "offset": "5", "kb_id": 7}]},
        "kb_id: expected str, got 7",
    ),
    ({"mention_data": "x"}, "mention_data: expected a list, got str"),
    ({"mentions": [{"start": 4, "end": 6, "text": "许蓁", "entity": "7"}]}, 'the text has "雾灯"'),
    ({"mentions": [{"start": 4, "end": 6, "entity": 7}]}, "entity: expected an id or null, got 7"),
    ({"mentions": [{"start": 4}]}, 'missing field "end"'),
    ({"mentions": ["x"]}, "expected an object"),
]


@pytest.mark.parametrize(("record", "why"), BAD)
def test_a_wrong_mention_is_told(record, why):
    with pytest.raises(RecordError) as caught:
        read_mentions(record, "许蓁写了雾灯")
    assert why in caught.value.message
