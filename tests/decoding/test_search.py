"""Beam search against brute force and against a plain beam search that never stops early."""

import math

import pytest
import torch
from decoding_reference import (
    EOS,
    DictTrie,
    TinyModel,
    V,
    assert_same,
    every_sequence,
    next_of,
    plain_beam_search,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.decoding.per_position import Free
from nlpkit.decoding.repetition import NoRepeat
from nlpkit.decoding.search import beam_search
from nlpkit.errors import SettingsError

SEQUENCES = st.lists(st.lists(st.integers(0, 4), max_size=4).map(tuple), min_size=0, max_size=8)
ROWS = st.lists(SEQUENCES, min_size=1, max_size=3)
NORMS = st.sampled_from(["full", "renorm"])
SEEDS = st.integers(0, 10**6)
quick = settings(max_examples=60)


@quick
@given(ROWS, SEEDS, NORMS, st.booleans(), st.integers(0, 5))
def test_enough_beams_equal_brute_force(rows, seed, norm, normalised, max_length):
    model, trie = TinyModel(len(rows), seed), DictTrie(rows)
    found = beam_search(
        model, trie, len(rows), 45, max_length, norm=norm, length_normalised=normalised
    )
    for row, (sequences, hypotheses) in enumerate(zip(rows, found.lists(), strict=True)):
        expected = every_sequence(model, row, next_of(sequences), max_length, norm, normalised)
        assert_same(hypotheses, sorted(expected.items(), key=lambda item: -item[1]))


@quick
@given(ROWS, SEEDS, NORMS, st.booleans(), st.integers(1, 4), st.integers(0, 5))
def test_few_beams_equal_a_plain_beam_search(rows, seed, norm, normalised, beams, max_length):
    model, trie = TinyModel(len(rows), seed), DictTrie(rows)
    found = beam_search(
        model, trie, len(rows), beams, max_length, norm=norm, length_normalised=normalised
    )
    for row, (sequences, hypotheses) in enumerate(zip(rows, found.lists(), strict=True)):
        assert_same(
            hypotheses,
            plain_beam_search(model, row, next_of(sequences), beams, max_length, norm, normalised),
        )


@quick
@given(SEEDS, st.booleans(), st.integers(1, 4), st.integers(0, 6))
def test_without_a_constraint(seed, normalised, beams, max_length):
    model = TinyModel(3, seed)
    found = beam_search(model, Free(V, EOS), 3, beams, max_length, length_normalised=normalised)
    for row, hypotheses in enumerate(found.lists()):
        assert_same(
            hypotheses,
            plain_beam_search(
                model, row, lambda _: set(range(V)), beams, max_length, "full", normalised
            ),
        )


@pytest.mark.parametrize("norm", ["full", "renorm"])
def test_one_beam_is_greedy(norm):
    model, rows = TinyModel(20), [[(1,), (1, 2), (3, 3), (3, 3, 4), (0, 1, 2, 3), ()]] * 20
    found = beam_search(model, DictTrie(rows), 20, 1, 4, norm=norm).lists()
    for row, hypotheses in enumerate(found):
        prefix, legal = (), next_of(rows[row])
        while not prefix or prefix[-1] != EOS:
            log_probs = model.log_probs(row, prefix)
            prefix = (*prefix, max(legal(prefix), key=lambda token: log_probs[token]))
        assert [tuple(sequence) for sequence, _ in hypotheses] == [prefix[:-1]]


@quick
@given(st.lists(SEQUENCES, min_size=2, max_size=4), SEEDS, st.integers(1, 3))
def test_a_row_alone_is_the_row_in_a_batch(rows, seed, beams):
    together = beam_search(TinyModel(len(rows), seed), DictTrie(rows), len(rows), beams, 4).lists()
    for row, sequences in enumerate(rows):
        model = TinyModel(1, seed, first_row=row)
        alone = beam_search(model, DictTrie([sequences]), 1, beams, 4).lists()[0]
        assert_same(together[row], alone, 1e-5)


def test_what_is_missing_and_where_sequences_end():
    rows = [[(1, 2), (1,)], [], [(0,)]]
    trie = DictTrie(rows)
    found = beam_search(TinyModel(3), trie, 3, 4, 3)
    assert found.tokens_BKL.shape == (3, 4, 3)
    assert (found.score_BK > -math.inf).sum(1).tolist() == [2, 0, 1]
    for row in range(3):
        for beam in range(4):
            tokens, length = found.tokens_BKL[row, beam].tolist(), int(found.length_BK[row, beam])
            assert tokens[length:] == [-1] * (3 - length)
            state = int(found.state_BK[row, beam])
            if found.score_BK[row, beam] > -math.inf:
                assert trie.beginnings[state] == tuple(tokens[:length])
            else:
                assert (length, state) == (0, -1)


def test_at_the_greatest_length_only_an_end_is_legal():
    rows = [[(1, 2, 3), (4,)], [(1, 2, 3)]]
    assert [
        [s for s, _ in row] for row in beam_search(TinyModel(2), DictTrie(rows), 2, 2, 2).lists()
    ] == [[[4]], []]
    full = beam_search(TinyModel(2), DictTrie([[()]] * 2), 2, 1, 0).score_BK[:, 0]
    assert full.tolist() == pytest.approx(
        [TinyModel(2).log_probs(row, ())[EOS] for row in range(2)], abs=1e-5
    )
    assert (
        beam_search(TinyModel(2), DictTrie([[()]] * 2), 2, 1, 0, norm="renorm").score_BK.tolist()
        == [[0.0]] * 2
    )


@pytest.mark.parametrize("normalised", [False, True])
def test_it_stops_when_nothing_better_can_come(normalised):
    model = TinyModel(1)
    model.out_HV = torch.zeros(4, V)
    model.out_HV[:, EOS] = 100 * model.start_B1H[0, 0]  # the end is nearly certain from the start
    found = beam_search(model, Free(V, EOS), 1, 1, 50, length_normalised=normalised)
    assert found.length_BK.tolist() == [[0]]
    assert model.steps == 0


@quick
@given(SEEDS, st.integers(1, 3))
def test_no_gram_comes_twice(seed, size):
    def legal(prefix):
        grams = [prefix[i : i + size] for i in range(len(prefix) - size + 1)]
        return {
            t
            for t in range(V)
            if t == EOS or (*prefix, t)[-size:] not in grams or len(prefix) + 1 < size
        }

    model = TinyModel(2, seed)
    found = beam_search(NoRepeat(model, size), Free(V, EOS), 2, 3, 6, norm="renorm")
    for row, hypotheses in enumerate(found.lists()):
        assert_same(hypotheses, plain_beam_search(model, row, legal, 3, 6, "renorm"))


def test_wrong_settings():
    for beams, max_length in ((0, 3), (1, -1)):
        with pytest.raises(SettingsError, match="beam_size >= 1"):
            beam_search(TinyModel(1), Free(V, EOS), 1, beams, max_length)
    with pytest.raises(SettingsError, match="at least 1"):
        NoRepeat(TinyModel(1), 0)
