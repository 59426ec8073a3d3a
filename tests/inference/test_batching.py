"""Pieces of least time against every way to cut a sorted list."""

import itertools
import random

import pytest

from nlpkit.inference.batching import BATCH_COST, cheapest
from nlpkit.text.tokenizer import padded_length


def time_of(widths):
    return len(widths) * max(widths) + BATCH_COST


def least_time(widths, most, max_tokens):
    """The least time of all ways to cut sorted widths into pieces that are small enough."""
    best = float("inf")
    inner = range(1, len(widths))
    for count in range(len(widths)):
        for cuts in itertools.combinations(inner, count):
            ends = [0, *cuts, len(widths)]
            pieces = [widths[first:end] for first, end in itertools.pairwise(ends)]
            small = (len(piece) <= most for piece in pieces)
            few = (len(piece) * max(piece) <= max_tokens or len(piece) == 1 for piece in pieces)
            if all(small) and all(few):
                best = min(best, sum(map(time_of, pieces)))
    return best


@pytest.mark.parametrize("seed", range(20))
def test_no_other_pieces_take_less_time(seed):
    drawn = random.Random(seed)
    lengths = [drawn.choice((3, 9, 30, 31, 90, 300, 700)) for _ in range(drawn.randint(1, 9))]
    most = drawn.randint(1, 6)
    max_tokens = drawn.choice((64, 256, 2000))
    pieces = cheapest(lengths, most, max_tokens)
    assert sorted(place for piece in pieces for place in piece) == list(range(len(lengths)))
    widths = [[padded_length(lengths[place]) for place in piece] for piece in pieces]
    for row in widths:
        assert len(row) <= most
        assert len(row) == 1 or len(row) * max(row) <= max_tokens
    in_order = sorted(map(padded_length, lengths))
    assert sum(map(time_of, widths)) == least_time(in_order, most, max_tokens)


def test_nothing_makes_no_pieces():
    assert cheapest([], 64, 8192) == []
