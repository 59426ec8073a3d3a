"""First values: their variance, and what a layer and a step of training do with it."""

import math

import pytest
import torch
from torch import nn

from nlpkit.layers.initialisation import CUT, MATRICES, NtkLinear, truncated


def test_the_variance_that_a_cut_leaves_is_the_integral() -> None:
    number_N = torch.linspace(-2, 2, 200_001, dtype=torch.float64)
    density_N = torch.exp(-number_N.square() / 2)
    whole = torch.trapezoid(density_N, number_N)
    variance = torch.trapezoid(density_N * number_N.square(), number_N) / whole
    assert pytest.approx(variance.item(), abs=1e-9) == CUT
    assert pytest.approx(1.1368, abs=1e-4) == CUT**-0.5


def test_a_truncated_normal_has_the_deviation_that_is_asked_for() -> None:
    weight = torch.empty(1000, 1000, dtype=torch.float64)
    truncated(weight, 0.02)
    assert weight.std().item() == pytest.approx(0.02, rel=5e-3)
    assert weight.abs().max() <= 2 * 0.02 / math.sqrt(CUT)


@pytest.mark.parametrize("name", ["lecun", "ntk"])
def test_outputs_have_the_variance_of_inputs(name: str) -> None:
    layer = (NtkLinear if name == "ntk" else nn.Linear)(400, 900).double()
    MATRICES[name](layer.weight.data, 0.02)
    nn.init.zeros_(layer.bias)
    output_NO = layer.train()(torch.randn(500, 400, dtype=torch.float64))
    assert output_NO.square().mean().item() == pytest.approx(1, rel=0.02)


def test_an_ntk_layer_is_the_product_over_the_root_of_its_inputs() -> None:
    layer = NtkLinear(6, 4).double()
    input_NM = torch.randn(3, 6, dtype=torch.float64)
    expected_NO = input_NM @ layer.weight.t() / math.sqrt(6) + layer.bias
    torch.testing.assert_close(layer.train()(input_NM), expected_NO, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.eval()(input_NM), expected_NO, rtol=0, atol=1e-12)


@pytest.mark.parametrize("inputs", [16, 64])
def test_a_step_moves_the_output_of_an_ntk_layer_by_a_share_of_its_inputs(inputs: int) -> None:
    """With gradient descent of rate r the output moves by r |x|^2 / m, of a plain layer by
    r |x|^2."""
    input_NM = torch.randn(1, inputs, dtype=torch.float64)
    moved = []
    for kind in (nn.Linear, NtkLinear):
        layer = kind(inputs, 1, bias=False).double().train()
        before = layer(input_NM)
        (gradient_OM,) = torch.autograd.grad(before.sum(), layer.weight)
        layer.weight.data -= 0.1 * gradient_OM
        moved.append((layer(input_NM) - before).item())
    assert moved[0] == pytest.approx(-0.1 * input_NM.square().sum().item())
    assert moved[1] == pytest.approx(moved[0] / inputs)


def test_an_ntk_layer_has_the_same_rows_however_many_there_are() -> None:
    layer = NtkLinear(200, 8).eval()
    input_NM = torch.randn(9, 200)
    output_NO = layer(input_NM)
    for row in range(9):
        assert torch.equal(layer(input_NM[row : row + 1]), output_NO[row : row + 1])
