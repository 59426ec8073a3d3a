"""Sampling: legal, of the right frequencies, and independent of the rest of the batch."""

import math
from collections import Counter

import pytest
import torch
from decoding_reference import EOS, DictTrie, TinyModel, V, every_sequence, next_of
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.decoding.per_position import Free
from nlpkit.decoding.sampling import sample
from nlpkit.errors import SettingsError

SEQUENCES = [(1,), (1, 2), (3, 3), (3, 3, 4), (0, 1, 2, 3), ()]


class Repeated(TinyModel):
    """Every row the same."""

    def __init__(self, rows, seed=0):
        super().__init__(rows, seed)
        self.start_B1H = self.start_B1H[:1].expand(rows, -1, -1)


def texts(found):
    return [tuple(row[0][0]) if row else None for row in found.lists()]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_frequencies_are_the_probabilities(temperature):
    count = 1500
    drawn = sample(
        Repeated(count),
        DictTrie([SEQUENCES] * count),
        [(7, n) for n in range(count)],
        4,
        temperature=temperature,
    )
    model = Repeated(1)
    model.out_HV = model.out_HV / temperature
    expected = every_sequence(model, 0, next_of(SEQUENCES), 4, "renorm")
    seen = Counter(texts(drawn))
    assert set(seen) <= set(expected)
    for sequence, log_p in expected.items():
        assert seen[sequence] / count == pytest.approx(math.exp(log_p), abs=2.5 / math.sqrt(count))
    for row in range(5):
        assert float(drawn.score_BK[row, 0]) == pytest.approx(expected[texts(drawn)[row]], abs=1e-4)


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    st.integers(0, 9),
    st.sampled_from([None, 1, 2]),
)
def test_a_row_does_not_see_the_others(seeds, seed, top_k):
    options = {"temperature": 1.5, "top_k": top_k, "top_p": 0.9}
    together = texts(sample(TinyModel(len(seeds), seed), Free(V, EOS), seeds, 6, **options))
    for row, own in enumerate(seeds):
        assert texts(
            sample(TinyModel(1, seed, first_row=row), Free(V, EOS), [own], 6, **options)
        ) == [together[row]]


def test_the_least_probable_are_cut():
    count, model = 500, Repeated(500)
    p = [math.exp(log_p) for log_p in model.log_probs(0, ())]
    best = sorted(range(V), key=lambda token: -p[token])

    def firsts(**options):
        return {
            text[0] if text else EOS
            for text in texts(sample(model, Free(V, EOS), range(count), 1, **options))
        }

    assert firsts() >= {token for token in range(V) if p[token] > 0.02}
    assert firsts(top_k=1) == {best[0]}
    assert firsts(top_k=2) == set(best[:2])
    assert firsts(top_p=p[best[0]] - 0.01) == {best[0]}
    assert firsts(top_p=p[best[0]] + 0.01) == set(best[:2])
    # of the two kept, the first alone now has more than half
    assert firsts(top_k=2, top_p=p[best[0]] / (p[best[0]] + p[best[1]]) - 0.01) == {best[0]}


def test_dead_ends_and_the_greatest_length():
    rows = [[(1, 2, 3)], [(1, 2)], [()], []]
    found = sample(TinyModel(4), DictTrie(rows), [1, 2, 3, 4], 2)
    assert texts(found) == [None, (1, 2), (), None]
    assert found.score_BK[:, 0].tolist() == pytest.approx([-math.inf, 0, 0, -math.inf])
    assert found.tokens_BKL.tolist() == [[[-1, -1]], [[1, 2]], [[-1, -1]], [[-1, -1]]]
    free = sample(TinyModel(5), Free(V, EOS, min_length=3), range(5), 3)
    assert free.length_BK.tolist() == [[3]] * 5


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}]
)
def test_wrong_settings(wrong):
    with pytest.raises(SettingsError, match="sampling: expected"):
        sample(TinyModel(1), Free(V, EOS), [0], 3, **wrong)


def test_probabilities_too_small_for_float32_are_no_trouble():
    model = TinyModel(2)
    model.out_HV = 1000 * model.out_HV
    assert torch.isfinite(sample(model, Free(V, EOS), [0, 1], 3).score_BK).all()
