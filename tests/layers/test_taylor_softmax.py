"""The softmax of a polynomial: against its series, its least values, masks."""

import math

import pytest
import torch

from nlpkit.layers.taylor_softmax import LEAST, exponential, taylor_softmax
from nlpkit.text.tokenizer import padded_length

PUBLISHED = {2: 0.5, 4: 0.270395, 6: 0.149325, 8: 0.0832715, 10: 0.0466991}
"""Order -> least value, kexue.fm/archives/7919."""


def series(number_N: torch.Tensor, order: int) -> torch.Tensor:
    terms = [number_N**power / math.factorial(power) for power in range(order + 1)]
    return torch.stack(terms).sum(0)


@pytest.mark.parametrize("order", LEAST)
def test_the_exponential_is_the_series_from_its_least_value_on(order: int) -> None:
    number_N = torch.linspace(-9, 4, 131_001, dtype=torch.float64)
    least = series(number_N, order).argmin()
    assert number_N[least].item() == pytest.approx(LEAST[order], abs=1e-4)
    found_N = exponential(number_N, order)
    assert found_N.min().item() == pytest.approx(PUBLISHED[order], rel=1e-5)
    right = number_N >= LEAST[order]
    torch.testing.assert_close(found_N[right], series(number_N, order)[right])
    assert (found_N.diff() >= 0).all()
    far = (exponential(number_N, order) - number_N.exp()).abs()[number_N.abs() < 0.5].max()
    assert far < 0.5 ** (order + 1) * 2 / math.factorial(order + 1)


@pytest.mark.parametrize("order", LEAST)
def test_weights_are_positive_sum_to_one_and_leave_out_what_is_hidden(order: int) -> None:
    score_XK = 5 * torch.randn(3, 4, 6, dtype=torch.float64)
    hidden_K = torch.arange(6) > 3
    weight_XK = taylor_softmax(score_XK, order, hidden_K)
    assert (weight_XK[..., 4:] == 0).all()
    assert (weight_XK[..., :4] > 0).all()
    torch.testing.assert_close(weight_XK.sum(-1), torch.ones(3, 4, dtype=torch.float64))
    torch.testing.assert_close(weight_XK[..., :4], taylor_softmax(score_XK[..., :4], order))
    assert torch.isfinite(taylor_softmax(score_XK, order, torch.ones(6, dtype=torch.bool))).all()


def test_its_gradient_is_the_finite_difference() -> None:
    score_XK = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    hidden_XK = torch.tensor([[False] * 5, [False, True, False, True, False]])
    assert torch.autograd.gradcheck(lambda score: taylor_softmax(score, 4, hidden_XK), score_XK)


def test_padding_changes_no_bit() -> None:
    score_XK = 3 * torch.randn(200, 208)
    for length in range(17, 208, 10):
        width = padded_length(length)
        hidden_K = torch.arange(208) >= length
        padded_XK = taylor_softmax(score_XK, 4, hidden_K)[:, :length]
        alone_XK = taylor_softmax(score_XK[:, :width].contiguous(), 4, hidden_K[:width])
        assert torch.equal(alone_XK[:, :length], padded_XK), length
