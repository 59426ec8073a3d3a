"""Trees from levels: the rule of the source, written as it is there, and how trees are told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.encoders.trees import (
    balanced_tree,
    brackets,
    constituents,
    picture,
    tree_of_levels,
)

SMALL = st.lists(st.integers(0, 4), min_size=1, max_size=12)


def by_the_source(levels, start=0):
    """Nested lists of places: [x_<k, [x_k, x_>k]], as section 5.2 of the paper has it."""
    if len(levels) == 1:
        return start
    highest = levels.index(max(levels))
    rest = levels[highest + 1 :]
    after = start + highest
    if rest:
        after = [after, by_the_source(rest, start + highest + 1)]
    if highest == 0:
        return after
    return [by_the_source(levels[:highest], start), after]


def written(nested, tokens):
    """A nested list as brackets."""
    if isinstance(nested, int):
        return tokens[nested]
    return "(" + " ".join(written(part, tokens) for part in nested) + ")"


@given(SMALL)
def test_the_tree_is_that_of_the_source(levels):
    tokens = [chr(ord("a") + place) for place in range(len(levels))]
    nodes = tree_of_levels(np.array(levels))
    assert brackets(tokens, nodes) == written(by_the_source(levels), tokens)


@given(SMALL)
def test_a_tree_is_binary_and_its_parts_are_nested(levels):
    nodes = tree_of_levels(np.array(levels))
    length = len(levels)
    assert len(nodes) == 2 * length - 1
    assert nodes[0] == (0, length, 0)
    assert sorted(start for start, end, _ in nodes if end - start == 1) == list(range(length))
    for start, end in constituents(nodes):
        inside = [n for n in nodes if start <= n.start and n.end <= end and n[:2] != (start, end)]
        halves = [n for n in inside if n.depth == min(one.depth for one in inside)]
        assert [halves[0].start, halves[0].end, halves[1].end] == [start, halves[1].start, end]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_no_part_is_split_where_another_token_is_higher(levels):
    """By the definition, over all places of all parts."""
    nodes = tree_of_levels(np.array(levels))
    starts = {(start, end) for start, end, _ in nodes}
    for start, end in constituents(nodes):
        for place in range(start + 1, end):
            if (start, place) in starts and (place, end) in starts:
                assert place == start + 1 or levels[place] == max(levels[start:end])


def test_ties_go_to_the_left():
    tokens = list("今天下雨")
    assert brackets(tokens, tree_of_levels(np.zeros(4))) == "(今 (天 (下 雨)))"
    assert brackets(tokens, tree_of_levels(np.array([0, 1, 1, 0]))) == "(今 (天 (下 雨)))"
    assert brackets(tokens, tree_of_levels(np.array([1, 0, 2, 0]))) == "((今 天) (下 雨))"


def test_a_balanced_tree():
    assert brackets(list("abcde"), balanced_tree(5)) == "((a b) (c (d e)))"


@pytest.mark.parametrize(("tokens", "expected"), [([], ""), (["好"], "好")])
def test_the_smallest_trees(tokens, expected):
    nodes = tree_of_levels(np.zeros(len(tokens)))
    assert brackets(tokens, nodes) == picture(tokens, nodes) == expected
    assert constituents(nodes) == []


def test_a_long_tree_takes_no_deep_recursion():
    nodes = tree_of_levels(np.zeros(5000))
    assert brackets(["好"] * 5000, nodes).count("(") == 4999


def test_brackets_of_the_text_are_no_brackets_of_the_tree():
    assert brackets(["(", "a"], tree_of_levels(np.zeros(2))) == "(-LRB- a)"


def test_a_picture_tells_every_part_once():
    nodes = tree_of_levels(np.array([1, 0, 2, 0, 0]))
    assert picture(list("今天下大雨"), nodes) == "今天下大雨\n  今天\n  下大雨\n    下\n    大雨"
    assert picture(list("今天"), tree_of_levels(np.zeros(2))) == "今天"
