"""Answers: what is compared of them, figures by hand, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.errors import RecordError
from nlpkit.tasks._mrc.answers import (
    Answer,
    Prediction,
    bag_f1,
    exact_match,
    halfwidth_lower,
    length_group,
    normalise,
    parse_prediction,
    read_answers,
    score_answers,
)


def gold(first, *others):
    return Prediction(first, alternatives=[Answer(other) for other in others])


@pytest.mark.parametrize(
    ("answer", "compared"),
    [
        ("《长夜》。", "长夜"),
        ("ＡＢＣ 公司", "abc公司"),
        ("３.５万", "3.5万"),
        ("约3.", "约3"),
        ("5％", "5%"),
        ("百分之%", "百分之"),
        ("Tom_Li", "tomli"),
        ("……", "……"),
        ("", ""),
        (" \n", ""),
        ("①甲㎏", "1甲"),
    ],
)
def test_what_is_compared(answer, compared):
    assert normalise(answer) == compared


@given(st.text())
def test_folding_keeps_every_place_and_is_done_once(text):
    assert len(halfwidth_lower(text)) == len(text)
    assert halfwidth_lower(halfwidth_lower(text)) == halfwidth_lower(text)


def test_figures_by_hand():
    assert exact_match(gold("何晴", "何晴女士"), "何晴女士。")
    assert not exact_match(gold("何晴"), "何")
    assert bag_f1(gold("何晴"), "何晴女士") == pytest.approx(2 * 2 / 6)
    assert bag_f1(gold("何晴", "何晴女士"), "女士何") == pytest.approx(2 * 3 / 7)
    assert bag_f1(gold("二二三"), "二三三") == pytest.approx(2 * 2 / 6)
    assert bag_f1(gold(""), "") == 1
    assert bag_f1(gold(""), "何") == bag_f1(gold("何"), "") == 0
    pairs = [
        (gold("何晴"), Prediction("何晴。")),
        (gold("何晴"), Prediction("何晴女士")),
        (gold(""), Prediction("")),
        (gold("何晴"), Prediction("")),
    ]
    assert score_answers(pairs) == {
        "cmrc_exact_match": 0.5,
        "cmrc_f1": round((1 + 2 / 3 + 1) / 4, 6),
        "exact_match": 0.5,
        "bag_f1": round((1 + 2 / 3 + 1) / 4, 6),
        "final": round((0.5 + (1 + 2 / 3 + 1) / 4) / 2, 6),
        "no_answer_accuracy": 0.75,
        "match": "cmrc_: script of CMRC 2018; others: normalised, in any order",
    }


def test_groups_by_length():
    answers = ["", "何晴", "一二三四五", "一" * 16, "一" * 32, "一" * 33]
    assert [length_group(answer) for answer in answers] == [
        "none",
        "1-4",
        "5-8",
        "9-16",
        "17-32",
        "33 and more",
    ]


def test_gold_of_records():
    assert read_answers({}) is None
    assert read_answers({"answers": []}) == Prediction("")
    assert read_answers({"answers": ["何晴", "何晴", "她"]}).accepted == ["何晴", "她"]


@pytest.mark.parametrize("answers", ["何晴", [""], [" "], [3], [["何晴"]], {"text": "何晴"}])
def test_wrong_answers_are_refused(answers):
    with pytest.raises(
        RecordError, match='field "answers": expected a list of strings that are not blank'
    ):
        read_answers({"answers": answers})


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"answer": None},
        {"answer": "何晴", "span": 3},
        {"answer": "何晴", "alternatives": {}},
        {"answer": "", "alternatives": ["何"]},
    ],
)
def test_wrong_predictions_are_refused(value):
    with pytest.raises(RecordError, match="field"):
        parse_prediction(value)


def test_a_prediction_may_be_an_answer_alone():
    assert parse_prediction({"answer": "何晴"}) == Prediction("何晴")
