"""The dev lines that are kept where no dev file is given: what belongs together stays together."""

import pytest
from conftest import write_lines
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.errors import DataError
from nlpkit.training import split
from nlpkit.training.dataset import Records
from nlpkit.training.split import groups_of, shared_keys, split_by_content, tuning_half


def split_of(tmp_path, records):
    train, dev = split_by_content([write_lines(tmp_path / "data.jsonl", records)])
    return [record for _, record in train.pairs], [record for _, record in dev.pairs]


def test_no_passage_is_on_both_sides(tmp_path):
    records = [
        {"question": f"第{n}问", "passages": [f"段落{n // 3}", f"段落{(n + 100) % 700}甲"]}
        for n in range(600)
    ]
    records += [{"question": f"又{n}", "context": f"段落{n}"} for n in range(150)]
    train, dev = split_of(tmp_path, records)
    assert len(train) + len(dev) == 750
    assert 20 < len(dev) < 150

    def passages(side):
        return {p for r in side for p in [*r.get("passages", ()), r.get("context")] if p}

    assert not passages(train) & passages(dev)


def test_texts_and_groups_stay_together_and_other_lines_go_by_themselves(tmp_path):
    records = [{"text": f"句子{n // 2}", "label": n % 2} for n in range(400)]
    records += [{"group": n // 4, "text": f"不同{n}"} for n in range(400)]
    records += [{"question": f"问{n}", "text": ""} for n in range(400)]
    train, dev = split_of(tmp_path, records)
    assert not {r["text"] for r in train if "label" in r} & {r["text"] for r in dev if "label" in r}
    assert not {r.get("group") for r in train} & {r.get("group") for r in dev} - {None}
    kinds = [sum(key in r for r in dev) for key in ("label", "group", "question")]
    assert all(10 < count < 90 for count in kinds), kinds


def test_other_lines_change_nothing(tmp_path):
    records = [{"text": f"句子{n}"} for n in range(300)]
    _, dev = split_of(tmp_path, records)
    _, more = split_of(tmp_path, [{"text": "新的"}, *records, {"text": "也是新的"}])
    assert [r for r in more if r in records] == dev


def test_dev_has_a_most(tmp_path, monkeypatch):
    monkeypatch.setattr(split, "DEV_MOST", 11)
    records = [{"group": n // 2, "text": str(n)} for n in range(600)]
    train, dev = split_of(tmp_path, records)
    assert len(dev) == 10
    assert len(train) == 590


def test_lines_that_all_share_a_text_need_a_dev_file(tmp_path):
    with pytest.raises(DataError, match="share too much"):
        split_of(tmp_path, [{"context": "同一段", "question": str(n)} for n in range(50)])


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1), min_size=1, max_size=12))
def test_groups_are_the_connected_ones(keys):
    split_all = {number for _, numbers in all_groups(keys) for number in numbers}
    assert split_all == set(range(len(keys)))
    for _, numbers in all_groups(keys):
        inside = {key for number in numbers for key in keys[number]}
        reached = {numbers[0]}
        while more := {
            n
            for n in range(len(keys))
            if n not in reached and any(set(keys[n]) & set(keys[m]) for m in reached)
        }:
            reached |= more
        assert reached == set(numbers)
        assert not inside & {key for n in set(range(len(keys))) - reached for key in keys[n]}


def all_groups(keys):
    return groups_of([[key.encode() for key in own] for own in keys])


def test_dev_has_two_halves_that_share_nothing(tmp_path):
    records = [{"text": f"句子{n // 2}", "n": n % 2} for n in range(4000)]
    _, dev = split_by_content([write_lines(tmp_path / "data.jsonl", records)])
    is_in = tuning_half(dev)
    assert 0.3 < sum(is_in) / len(is_in) < 0.7
    sides = [
        {record["text"] for (_, record), own in zip(dev.pairs, is_in, strict=True) if own == side}
        for side in (True, False)
    ]
    assert not sides[0] & sides[1]
    reversed_dev = Records(dev.pairs[::-1], dev.sha256)
    assert tuning_half(reversed_dev) == is_in[::-1]


def test_pairs_with_a_sentence_in_common_stay_on_one_side():
    keys = [
        shared_keys({"text_a": a, "text_b": b, "label": 1})
        for a, b in (("甲", "乙"), ("乙", "丙"), ("丁", "戊"), ("戊", "甲甲"))
    ]
    assert sorted(sorted(members) for _, members in groups_of(keys)) == [[0, 1], [2, 3]]
