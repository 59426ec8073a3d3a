"""Pieces of passages, against all pieces written out."""

import pytest
import torch
from decoding_reference import (
    EOS,
    TinyModel,
    V,
    assert_same,
    every_sequence,
    next_of,
    plain_beam_search,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.decoding.passage import PassageConstraint
from nlpkit.decoding.sampling import sample
from nlpkit.decoding.search import beam_search

PASSAGES = st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=3)
ROWS = st.lists(PASSAGES, min_size=1, max_size=3)


def pieces(passages, may_be_empty):
    found = {
        tuple(p[i:j]) for p in passages for i in range(len(p)) for j in range(i + 1, len(p) + 1)
    }
    return sorted(found | ({()} if may_be_empty else set()))


@settings(max_examples=60)
@given(
    ROWS,
    st.integers(0, 10**6),
    st.sampled_from(["full", "renorm"]),
    st.booleans(),
    st.sampled_from([1, 2, 60]),
)
def test_the_best_pieces(rows, seed, norm, may_be_empty, beams):
    model = TinyModel(len(rows), seed)
    constraint = PassageConstraint(rows, EOS, may_be_empty=may_be_empty)
    found = beam_search(model, constraint, len(rows), beams, 7, norm=norm).lists()
    for row, passages in enumerate(rows):
        legal = next_of(pieces(passages, may_be_empty))
        assert_same(found[row], plain_beam_search(model, row, legal, beams, 7, norm))
        if beams == 60:
            assert {tuple(s) for s, _ in found[row]} == set(
                every_sequence(model, row, legal, 7, norm)
            )


@settings(max_examples=40)
@given(ROWS, st.integers(0, 10**6), st.integers(0, 6))
def test_where_a_piece_stands(rows, seed, max_length):
    constraint = PassageConstraint(rows, EOS, may_be_empty=True)
    found = beam_search(TinyModel(len(rows), seed), constraint, len(rows), 5, max_length)
    for row, hypotheses in enumerate(found.lists()):
        for beam, (sequence, _) in enumerate(hypotheses):
            place = constraint.locate(row, int(found.state_BK[row, beam]), len(sequence))
            if not sequence:
                assert place is None
                continue
            passage, start, end = place
            assert rows[row][passage][start:end] == sequence
            assert sequence not in [rows[row][passage][i : i + len(sequence)] for i in range(start)]


@settings(max_examples=40)
@given(ROWS, st.integers(0, 10**6))
def test_every_sample_is_a_piece(rows, seed):
    found = sample(TinyModel(len(rows), seed), PassageConstraint(rows, EOS), range(len(rows)), 8)
    for passages, hypotheses in zip(rows, found.lists(), strict=True):
        legal = pieces(passages, may_be_empty=False)
        assert bool(hypotheses) == bool(legal)
        assert all(tuple(sequence) in legal for sequence, _ in hypotheses)


def test_an_end_token_inside_a_passage_parts_it():
    constraint = PassageConstraint([[[1, EOS, 2]]], EOS)
    found = beam_search(TinyModel(1), constraint, 1, 9, 3).lists()
    assert sorted(sequence for sequence, _ in found[0]) == [[1], [2]]


def test_a_dead_beam_stays_dead():
    constraint = PassageConstraint([[[1, 2]]], EOS)
    dead = torch.full((1, 2), float("-inf"))
    state = constraint.start(1).expand(1, 2, -1)
    options = constraint.step(torch.zeros(1, 2, V), dead, state, 4)
    assert options.token_BC.tolist() == [[-1] * 4]
    assert not constraint.follow(state, options, torch.tensor([[0, 1]])).any()


def test_another_number_of_rows_is_refused():
    with pytest.raises(ValueError, match="expected 1 rows, got 2"):
        PassageConstraint([[[1]]], EOS).start(2)
