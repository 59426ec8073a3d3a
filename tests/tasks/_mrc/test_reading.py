"""Questions and their windows: what each has to answer, what is lost, and what is refused."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit import encoders
from nlpkit.config import build
from nlpkit.errors import DataError, RecordError, SettingsError
from nlpkit.tasks._mrc.answers import Prediction
from nlpkit.tasks._mrc.drawing import drawer
from nlpkit.tasks._mrc.reading import UNKNOWN, Reading
from nlpkit.tasks.mrc_mlm import Settings
from nlpkit.text.tokenizer import Tokenizer

TINY = encoders.load_tokenizer("tiny")


def reading(max_length=None, **limits):
    return Reading(Settings(**limits), Tokenizer(TINY.backend, max_length=max_length), None)


def read(record, **limits):
    return reading(**limits).read({"question": "谁？", **record})


def written(example):
    """What the windows have to answer."""
    return ["".join(map(TINY.backend.id_to_token, window.target)) for window in example.windows]


def test_every_passage_answers_for_itself():
    example = read(
        {"passages": ["何晴来了", "", "没有人", "她叫何晴女士"], "answers": ["何晴女士", "何晴"]}
    )
    assert written(example) == ["何晴", "", "", "何晴女士"]
    assert [window.passage for window in example.windows] == [0, 1, 2, 3]
    assert not example.lost


def test_width_and_case_do_not_hide_an_answer():
    example = read({"passages": ["𠮷ＡＢＣ公司", "abc"], "answers": ["Abc"]})
    assert written(example) == ["abc", "abc"]
    answer = example.windows[0].answer((1, 4), 0.123456)
    assert (answer.answer, answer.passage, answer.span, answer.score) == (
        "ＡＢＣ",
        0,
        (1, 4),
        0.1235,
    )


@pytest.mark.parametrize(
    ("record", "lost"),
    [
        ({"context": "何晴", "answers": ["顾平"]}, "in no passage"),
        ({"passages": [], "answers": ["顾平"]}, "in no passage"),
        ({"context": "一二三四五六", "answers": ["一二三四五"]}, "longer than 4 tokens"),
        ({"context": "一二三四五六", "answers": ["一二三四五", "五六"]}, ""),
        ({"context": "一二三四", "answers": ["一二三四"]}, ""),
        ({"context": "何晴\u3000来", "answers": [" 何晴 "]}, ""),
        ({"context": "何晴", "answers": []}, ""),
        ({"context": "何晴"}, ""),
    ],
)
def test_what_is_lost(record, lost):
    task = reading(max_answer=4)
    example = task.read({"question": "谁？", **record})
    assert example.lost == lost
    findings = list(task.report(example))
    assert [finding.kind for finding in findings] == ([lost] if lost else [])
    assert all(finding.lost in task.facts(example.gold) for finding in findings)


@pytest.mark.parametrize(
    ("context", "answers", "lost"),
    [
        ("锶比钪重", ["锶"], UNKNOWN),
        ("锶比铁重", ["锶"], ""),
        ("锶比锶重", ["锶"], ""),
        ("锶比钪重", ["锶比"], ""),
        ("锶比钪重", ["锶", "重"], ""),
    ],
)
def test_answers_of_unknown_characters_are_lost_where_others_look_like_them(context, answers, lost):
    assert TINY.unknown("锶钪比铁重") == ["锶", "钪"]
    assert read({"context": context, "answers": answers}).lost == lost


def test_an_answer_of_half_a_token_is_lost():
    backend = encoders.load_tokenizer("tiny").backend
    whole_words = Tokenizer(type(backend).from_str(backend.to_str()))
    whole_words.backend.add_tokens(["船票"])
    example = Reading(Settings(), whole_words, None).read(
        {"question": "？", "context": "买船票", "answers": ["票"]}
    )
    assert example.lost == "not of whole tokens"


def test_a_long_answer_is_cut_to_what_can_be_given():
    example = read({"context": "从一二三四五六到七", "answers": ["一二三四五六"]}, max_answer=4)
    assert written(example) == ["一二三四"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 120), st.integers(1, 8), st.integers(16, 40), st.integers(0, 60))
def test_an_answer_is_whole_in_some_window(before, length, max_passage, after):
    answer = "答" * length
    context = "前" * before + answer + "后" * after
    example = read({"context": context, "answers": [answer]}, max_passage=max_passage, max_answer=8)
    assert answer in written(example)
    assert set(written(example)) <= {answer, ""}
    covered = {
        place
        for w in example.windows
        for place in range(w.encoding.starts_T[1], w.encoding.ends_T[-2])
    }
    assert covered == set(range(len(context)))
    assert max(len(window.token_ids) for window in example.windows) <= max_passage


def test_windows_leave_room_for_the_question_in_what_the_encoder_takes():
    task = reading(max_length=48, max_question=10, max_answer=8)
    for question in ("问" * 10, "问"):
        example = task.read({"question": question, "context": "字" * 200})
        longest = max(len(window.token_ids) for window in example.windows)
        assert longest == 48 - 8 - 5 - len(question)
        assert len(example) == sum(
            len(window.token_ids) + 8 + 5 + len(question) for window in example.windows
        )
    with pytest.raises(SettingsError, match="takes 48 tokens, the settings ask for 50") as error:
        reading(max_length=48, max_question=21, max_answer=8)
    assert "max_answer" in error.value.hint


def test_another_window_every_time():
    task = reading(answering=None)
    example = task.read(
        {"question": "谁？", "passages": ["何晴", "顾平", "林薇"], "answers": ["顾平"]}
    )
    draw = task.augmenter([example])
    drawn = [draw(example, np.random.default_rng(seed)) for seed in range(40)]
    assert {len(one.windows) for one in drawn} == {1}
    assert {one.windows[0].passage for one in drawn} == {0, 1, 2}
    assert {len(one) for one in drawn} == {len(example) // 3}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99), st.integers(0, 60), st.integers(1, 8), st.integers(0, 60))
def test_a_window_drawn_to_answer_holds_the_answer(seed, before, length, after):
    answer = "答" * length
    context = "前" * before + answer + "后" * after
    example = read(
        {"passages": ["无关", context], "answers": [answer]}, max_passage=20, max_answer=8
    )
    window = drawer(1.0, 999)(example, np.random.default_rng(seed)).windows[0]
    (span,) = window.spans
    assert window.passage == 1
    assert window.text(span) == answer
    assert len(window.token_ids) == min(20, len(context))
    other = drawer(0.0, 12)(example, np.random.default_rng(seed)).windows[0]
    assert len(other.token_ids) == min(12, len("无关" if other.passage == 0 else context))
    assert all(other.text(span) == answer for span in other.spans)


def test_an_answer_may_stand_anywhere_in_a_drawn_window():
    example = read({"context": "前" * 90 + "答" + "后" * 90, "answers": ["答"]}, max_passage=64)
    draw = drawer(0.8, 64)
    places = []
    for seed in range(400):
        window = draw(example, np.random.default_rng(seed)).windows[0]
        places += [span[0] for span in window.spans]
    assert 0.8 < len(places) / 400 < 0.95  # some of the others hold it too
    assert min(places) < 8
    assert max(places) > 55


def test_all_places_of_an_answer_are_right_and_cut_ones_only_without_a_whole_one():
    example = read({"context": "晴和晴与何晴", "answers": ["何晴", "晴"]}, max_answer=2)
    assert example.windows[0].spans == ((4, 6), (0, 1), (2, 3), (5, 6))
    cut = read({"context": "一二三四，二三", "answers": ["一二三", "二三"]}, max_answer=2)
    assert cut.windows[0].spans == ((1, 3), (5, 7))
    only_cut = read({"context": "一二三四", "answers": ["一二三"]}, max_answer=2)
    assert only_cut.windows[0].spans == ((0, 2),)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"context": "何晴"}, 'missing field "question"'),
        ({"question": ["谁"], "context": "何晴"}, 'field "question": expected a string, got list'),
        (
            {"question": "问" * 129, "context": "何晴"},
            'field "question": expected at most 128 tokens, got 129',
        ),
        ({"question": "谁？"}, 'missing field "passages"'),
        ({"question": "谁？", "context": 3}, 'field "context": expected a string, got int'),
        (
            {"question": "谁？", "passages": "何晴"},
            'field "passages": expected a list of strings, got',
        ),
        (
            {"question": "谁？", "passages": ["何晴", None]},
            'field "passages": expected a list of strings, got',
        ),
        ({"question": "谁？", "passages": ["何晴"], "context": "何晴"}, "expected one of them"),
        ({"question": "谁？", "context": "何晴", "answers": "何晴"}, 'field "answers"'),
    ],
)
def test_wrong_records_are_refused(record, message):
    with pytest.raises(RecordError, match=message):
        reading().read(record)


def test_a_blank_question_is_reported():
    task = reading()
    example = task.read({"question": "", "context": "何晴", "answers": ["何晴"]})
    assert [finding.kind for finding in task.report(example)] == ["blank question"]
    assert all(finding.lost is None for finding in task.report(example))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_answer": 0}, "max_answer"),
        ({"max_question": 0}, "max_question"),
        ({"max_passage": 63}, "max_passage: expected at least twice"),
        ({"train_passage": 63}, "train_passage: expected at least twice"),
    ],
)
def test_settings_without_room_are_refused(limits, message):
    with pytest.raises(SettingsError, match=message):
        build(Settings, limits, "mrc_mlm")


@pytest.mark.parametrize(
    ("given", "answers", "settled"),
    [
        (None, [["何晴"], []], True),
        (None, [["何晴"], ["顾平"]], False),
        (True, [["何晴"]], True),
        (False, [[]], False),
    ],
)
def test_the_data_tells_whether_there_may_be_no_answer(given, answers, settled, tmp_path):
    records = [
        ("here", {"question": "谁？", "context": "何晴", "answers": some}) for some in answers
    ]
    assert Reading.prepare(Settings(no_answer=given), records, tmp_path) == dataclasses.replace(
        Settings(), no_answer=settled, max_answer=32, match_features=True
    )


@pytest.mark.parametrize(
    ("lengths", "given", "settled"),
    [
        ([2] * 19 + [33], {}, 32),
        ([2] * 18 + [33], {}, 64),
        ([2] * 18 + [33], {"max_passage": 100}, 50),
        ([2] * 18 + [33], {"max_answer": 40}, 40),
    ],
)
def test_the_data_tells_how_long_answers_may_be(lengths, given, settled, tmp_path):
    lines = [{"question": "谁？", "context": "", "answers": ["答" * length]} for length in lengths]
    records = [("here", line) for line in lines]
    prepared = Reading.prepare(build(Settings, given, "mrc_mlm"), records, tmp_path)
    assert prepared.max_answer == settled
    assert Reading(prepared, TINY, None).max_answer == settled


def test_a_wrong_answer_is_named_by_its_place(tmp_path):
    records = [("f:3", {"question": "谁？", "context": "", "answers": "答"})]
    with pytest.raises(DataError, match='f:3: field "answers": expected a list'):
        Reading.prepare(Settings(), records, tmp_path)


def test_one_of_the_accepted_answers_counts_as_the_first():
    task = reading()
    example = task.read(
        {"question": "谁？", "context": "何晴女士", "answers": ["何晴", "何晴女士"]}
    )
    judged = task.restrict_to_annotated(example, Prediction("何晴女士。", 0, (0, 4), 0.5))
    assert task.facts(judged) == task.facts(example.gold)
    assert (judged.passage, judged.span, judged.score) == (0, (0, 4), 0.5)
    other = Prediction("女士", 0, (2, 4), 0.5)
    assert task.restrict_to_annotated(example, other) == other
