"""Smooth activations against the integral that they are, their derivative and their limit."""

import math

import pytest
import torch

from nlpkit.layers.activations import SLOPE, activation, check_activation, is_smooth

SMOOTH = ("softplus", "smooth_relu", "sau")


def corner(name: str, number: torch.Tensor) -> torch.Tensor:
    """What is made smooth."""
    return torch.maximum(number, (SLOPE if name == "sau" else 0.0) * number)


def density(name: str, number: torch.Tensor, sharpness: float) -> torch.Tensor:
    """Of what it is convolved with: the derivative of a sigmoid, or a Gaussian."""
    if name == "softplus":
        return sharpness / (4 * torch.cosh(sharpness * number / 2).square())
    return sharpness / math.sqrt(2 * math.pi) * torch.exp(-0.5 * (sharpness * number).square())


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("sharpness", [0.5, 1.0, 4.0])
def test_smooth_activations_are_convolutions(name: str, sharpness: float) -> None:
    number_N = torch.linspace(-6, 6, 25, dtype=torch.float64)
    other_M = torch.linspace(-60, 60, 120_001, dtype=torch.float64)
    found_N = activation(f"{name}({sharpness})")(number_N)
    for number, found in zip(number_N, found_N, strict=True):
        product_M = corner(name, other_M) * density(name, number - other_M, sharpness)
        assert found.item() == pytest.approx(torch.trapezoid(product_M, other_M).item(), abs=1e-6)


@pytest.mark.parametrize("name", SMOOTH)
def test_their_gradient_is_the_finite_difference(name: str) -> None:
    function = activation(f"{name}(2)")
    number_N = torch.linspace(-4, 4, 33, dtype=torch.float64, requires_grad=True)
    (gradient_N,) = torch.autograd.grad(function(number_N).sum(), number_N)
    step = 1e-5
    difference_N = (function(number_N + step) - function(number_N - step)) / (2 * step)
    torch.testing.assert_close(gradient_N, difference_N, rtol=0, atol=1e-8)
    assert torch.autograd.gradgradcheck(function, number_N[::8])


@pytest.mark.parametrize("name", SMOOTH)
def test_with_the_sharpness_they_come_close_to_the_corner(name: str) -> None:
    number_N = torch.linspace(-3, 3, 61, dtype=torch.float64)
    far = [
        (activation(f"{name}({sharpness})")(number_N) - corner(name, number_N)).abs().max()
        for sharpness in (1, 10, 100)
    ]
    assert far[0] > 5 * far[1] > 25 * far[2]
    assert torch.equal(activation(name)(number_N), activation(f"{name}(1)")(number_N))


def test_forms_of_gelu_are_close_to_each_other() -> None:
    number_N = torch.linspace(-5, 5, 101, dtype=torch.float64)
    exact_N = number_N * 0.5 * (1 + torch.erf(number_N / math.sqrt(2)))
    for name, tolerance in {"gelu": 1e-12, "gelu_new": 1e-3, "quick_gelu": 0.03}.items():
        torch.testing.assert_close(activation(name)(number_N), exact_N, rtol=0, atol=tolerance)


def test_a_wrong_name_has_a_near_miss() -> None:
    for name in ("gelu", "sau", "sau(0.5)", "softplus(20)"):
        check_activation(name)
    with pytest.raises(ValueError, match='got softplos; did you mean "softplus"'):
        check_activation("softplos")
    for name in ("sau(0)", "sau(-1)", "sau(x)", "sau()", "gelu(2)", "", f"sau({'9' * 400})"):
        with pytest.raises(ValueError, match="activation: expected one of gelu"):
            check_activation(name)
        assert not is_smooth(name)
