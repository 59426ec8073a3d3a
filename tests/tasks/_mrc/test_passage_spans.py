"""The best pieces where every position is scored at once: against all pieces, and the walk against
a walk by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.decoding.passage import PassageConstraint
from nlpkit.decoding.search import beam_search
from nlpkit.tasks._mrc.passage_spans import Positions, best_spans

EOS, V = 5, 6
PASSAGES = st.lists(st.lists(st.integers(0, EOS), max_size=9), min_size=1, max_size=4)


def drawn(rows, positions, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, positions, V, generator=generator, dtype=torch.float64).log_softmax(-1)


def every_piece(passage, log_probs_LV, normalised):
    """[(score, start, length)] of all pieces without an end token in them, best first."""
    found = []
    for start in range(len(passage)):
        for length in range(1, min(len(log_probs_LV), len(passage) - start + 1)):
            tokens = passage[start : start + length]
            if EOS not in tokens:
                steps = [*tokens, EOS]
                score = sum(float(log_probs_LV[i, t]) for i, t in enumerate(steps))
                found.append((score / len(steps) if normalised else score, start, length))
    return sorted(found, reverse=True)


@settings(max_examples=150, deadline=None)
@given(PASSAGES, st.integers(2, 6), st.integers(1, 60), st.booleans(), st.integers(0, 10**6))
def test_the_best_spans_are_those_of_brute_force(passages, positions, count, normalised, seed):
    log_probs_BLV = drawn(len(passages), positions, seed)
    score_BN, start_BN, length_BN = best_spans(
        log_probs_BLV, passages, EOS, count, length_normalised=normalised
    )
    assert score_BN.shape == start_BN.shape == length_BN.shape == (len(passages), count)
    for row, passage in enumerate(passages):
        expected = every_piece(passage, log_probs_BLV[row], normalised)
        known = {(start, length): score for score, start, length in expected}
        parts = (part[row].tolist() for part in (score_BN, start_BN, length_BN))
        found = [piece for piece in zip(*parts, strict=True) if piece[0] > -torch.inf]
        assert [score for score, *_ in found] == pytest.approx(
            [score for score, *_ in expected[:count]]
        )
        assert len({place for _, *place in found for place in [tuple(place)]}) == len(found)
        assert all(known[start, length] == pytest.approx(score) for score, start, length in found)


@pytest.mark.parametrize("width", [6, 7, 30, 200])
def test_of_equal_spans_the_first_is_taken_whatever_stands_beside_it(width):
    log_probs_1LV = drawn(1, 4, 1).float()
    passages = [[2, 3, 2, 3, 2, 3], [1] * width]
    found = best_spans(log_probs_1LV.expand(2, -1, -1), passages, EOS, 9)
    alone = best_spans(log_probs_1LV, passages[:1], EOS, 9)
    for part, expected in zip(found, alone, strict=True):
        assert part[0].tolist() == expected[0].tolist()
    starts = {}
    for length, start in zip(alone[2][0].tolist(), alone[1][0].tolist(), strict=True):
        starts.setdefault((length, passages[0][start]), []).append(start)
    assert all(some == sorted(some) for some in starts.values())


def test_impossible_tokens_and_empty_passages():
    log_probs_BLV = drawn(2, 3, 0)
    log_probs_BLV[0, :, 1] = -torch.inf
    score_BN, start_BN, length_BN = best_spans(log_probs_BLV, [[1, 1, 2, 1], []], EOS, 3)
    assert (start_BN[0, 0], length_BN[0, 0]) == (2, 1)
    assert score_BN[0, 1:].tolist() == score_BN[1, 1:].tolist() == [-torch.inf] * 2
    assert score_BN[1, 0] == -torch.inf
    (none, *_) = best_spans(log_probs_BLV, [[], []], EOS)
    assert none.tolist() == [[-torch.inf]] * 2


def walk(passage, log_probs_LV):
    """The published way: the likeliest token that goes on with what was written, until that is the
    end."""
    written = []
    for log_probs_V in log_probs_LV[:-1]:
        n = len(written)
        places = [i for i in range(len(passage) - n) if passage[i : i + n] == written]
        options = {passage[i + n] for i in places} - {EOS} | ({EOS} if written else set())
        best = max(options, key=lambda token: float(log_probs_V[token]))
        if best == EOS:
            break
        written.append(best)
    return written


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, EOS - 1), min_size=1, max_size=8), min_size=1, max_size=4),
    st.integers(0, 999),
)
def test_a_walk_is_a_search_with_one_beam(passages, seed):
    log_probs_BLV = drawn(len(passages), 5, seed)
    constraint = PassageConstraint([[passage] for passage in passages], EOS)
    found = beam_search(Positions(log_probs_BLV), constraint, len(passages), 1, 4).lists()
    assert [row[0][0] for row in found] == [
        walk(p, log_probs_BLV[row]) for row, p in enumerate(passages)
    ]
