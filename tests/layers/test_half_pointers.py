"""Half pointers: probabilities and losses in float64, spans against brute force."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.layers.half_pointers import LONGEST, pointer_losses, scores, spans_from

LOGITS = st.lists(st.floats(-30, 30), min_size=1, max_size=8)


@pytest.mark.parametrize("power", [1, 2, 4])
@given(LOGITS)
def test_scores_and_losses_are_those_of_the_probability(power, logits):
    logits_T = torch.tensor(logits)
    p_T = [1 / (1 + math.exp(-x)) ** power for x in logits_T.double().tolist()]
    rest_T = []
    for x in logits_T.double().tolist():
        rest_T.append(-math.expm1(-power * math.log1p(math.exp(-x))))
    expected = [math.log(p) - math.log(r) for p, r in zip(p_T, rest_T, strict=True)]
    assert scores(logits_T, power).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    yes = pointer_losses(logits_T, torch.ones_like(logits_T).bool(), power)
    no = pointer_losses(logits_T, torch.zeros_like(logits_T).bool(), power)
    assert yes.tolist() == pytest.approx([-math.log(p) for p in p_T], rel=1e-4, abs=1e-5)
    assert no.tolist() == pytest.approx([-math.log(r) for r in rest_T], rel=1e-4, abs=1e-5)


def test_scores_and_gradients_stay_finite():
    logits_T = torch.tensor([-300.0, -50.0, 0.0, 50.0, 300.0], requires_grad=True)
    targets_T = torch.tensor([True, False, True, False, False])
    losses_T = pointer_losses(logits_T, targets_T, 4)
    losses_T.sum().backward()
    assert scores(logits_T, 4).isfinite().all()
    assert losses_T.isfinite().all()
    assert logits_T.grad.isfinite().all()


def brute(start, end, allowed, first):
    """(last, score) of the span from a token, in plain steps."""
    options = [j for j in range(first, min(len(end), first + LONGEST)) if allowed[j]]
    nearest = [j for j in options if end[j] > 0]
    last = nearest[0] if nearest else max(options, key=lambda j: end[j])
    return last, min(start[first], end[last])


@given(st.integers(0, 10_000), st.integers(1, 90))
def test_spans_are_those_of_brute_force(seed, length):
    generator = torch.Generator().manual_seed(seed)
    start_PT = torch.randn(2, length, generator=generator)
    end_PT = torch.randn(2, length, generator=generator) - 2
    allowed_T = torch.rand(length, generator=generator) < 0.9
    last_PT, score_PT = spans_from(start_PT, end_PT, allowed_T)
    for row in range(2):
        for first in range(length):
            if not allowed_T[first]:
                assert score_PT[row, first] == -torch.inf
                continue
            last, score = brute(
                start_PT[row].tolist(), end_PT[row].tolist(), allowed_T.tolist(), first
            )
            assert int(last_PT[row, first]) == last
            assert float(score_PT[row, first]) == pytest.approx(score)
