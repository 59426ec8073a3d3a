"""The score of CMRC 2018, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.tasks._mrc.answers import Answer, Prediction, bag_f1, score_answers
from nlpkit.tasks._mrc.cmrc_score import (
    cmrc_exact_match,
    cmrc_f1,
    longest_common_run,
    segments,
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("灯塔1921年", ["灯", "塔", "1921", "年"]),
        ("《雾灯》，Xu Zhen著。", ["雾", "灯", "xu", "zhen", "著"]),
        ("Fog-Lamp号", ["foglamp", "号"]),
        ("3.5%与1,000元", ["3.5", "%", "与", "1,000", "元"]),
        ("A,B and C.", ["a", ",", "b", "and", "c", "."]),
        ("３．５", ["３．５"]),
        ("等……", ["等", "……"]),
        ("", []),
        ("。", []),
    ],
)
def test_segments(text, wanted):
    assert segments(text) == wanted


@pytest.mark.parametrize(
    ("gold", "answer", "f1"),
    [
        ("1921年建成", "建于1921年", 2 * 2 / 8),
        ("许蓁", "许蓁女士", 2 * 2 / 6),
        ("许蓁", "蓁许", 2 * 1 / 4),
        ("一二三四", "四三二一", 2 * 1 / 8),
        ("许蓁", "顾平", 0.0),
        ("Xu Zhen", "xu zhen女士", 2 * 2 / 6),
        ("1921", "192", 0.0),
        ("《雾灯》", "雾灯。", 1.0),
        ("", "", 1.0),
        ("", "许", 0.0),
        ("许", "", 0.0),
    ],
)
def test_f1_by_hand(gold, answer, f1):
    assert cmrc_f1([gold], answer) == pytest.approx(f1)


def test_the_best_accepted_answer_counts():
    assert cmrc_f1(["许蓁", "许蓁女士"], "女士") == pytest.approx(2 * 2 / 6)
    assert cmrc_exact_match(["许蓁", "许蓁女士"], "许蓁女士。")
    assert not cmrc_exact_match(["许蓁"], "许")
    assert not cmrc_exact_match(["Xu Zhen"], "XuZhen")


@given(*[st.text("一二三", max_size=8)] * 2)
def test_a_run_is_in_both_and_none_is_longer(first, second):
    runs = [first[i:j] for i in range(len(first)) for j in range(i + 1, len(first) + 1)]
    assert longest_common_run(first, second) == max(
        (len(run) for run in runs if run in second), default=0
    )
    assert cmrc_f1([first], second) <= bag_f1(Prediction(first), second)


def test_both_ways_to_score_are_told_apart_by_order():
    gold = Prediction("一二三四", alternatives=[Answer("五")])
    scores = score_answers([(gold, Prediction("四三二一")), (gold, Prediction("五"))])
    assert (scores["cmrc_f1"], scores["bag_f1"]) == (0.625, 1.0)
    assert (scores["cmrc_exact_match"], scores["exact_match"], scores["final"]) == (0.5, 0.5, 0.75)
