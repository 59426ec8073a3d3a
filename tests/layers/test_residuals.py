"""Residuals and norms against their equations, in float64."""

import pytest
import torch
from torch import nn

from nlpkit.layers.residuals import RESIDUALS, RMSNorm, Scheduled

GENERATOR = torch.Generator().manual_seed(4)
HIDDEN_BTH = torch.randn(2, 3, 8, generator=GENERATOR, dtype=torch.float64)
INNER_BTI = torch.randn(2, 3, 5, generator=GENERATOR, dtype=torch.float64)


def made(name: str, **more: int):
    residual = RESIDUALS[name](nn.Linear(5, 8), lambda: nn.LayerNorm(8), 0.0, **more).double()
    return residual, residual.dense(INNER_BTI)


def normed(hidden_BTH: torch.Tensor) -> torch.Tensor:
    return nn.functional.layer_norm(hidden_BTH, (8,))


def test_post_norm_norms_the_sum() -> None:
    residual, branch_BTH = made("post")
    assert residual.enter(HIDDEN_BTH) is HIDDEN_BTH
    torch.testing.assert_close(residual(INNER_BTI, HIDDEN_BTH), normed(HIDDEN_BTH + branch_BTH))


def test_pre_norm_norms_what_goes_in() -> None:
    residual, branch_BTH = made("pre")
    torch.testing.assert_close(residual.enter(HIDDEN_BTH), normed(HIDDEN_BTH))
    torch.testing.assert_close(residual(INNER_BTI, HIDDEN_BTH), HIDDEN_BTH + branch_BTH)


def test_rezero_starts_as_the_identity_and_learns_its_weight() -> None:
    residual, branch_BTH = made("rezero")
    found_BTH = residual(INNER_BTI, HIDDEN_BTH)
    assert torch.equal(found_BTH, HIDDEN_BTH)
    found_BTH.sum().backward()
    assert residual.alpha.grad.item() == pytest.approx(branch_BTH.sum().item())
    nn.init.constant_(residual.alpha, 0.5)
    expected_BTH = HIDDEN_BTH + branch_BTH / 2
    torch.testing.assert_close(residual(INNER_BTI, HIDDEN_BTH), expected_BTH)


def test_a_scheduled_weight_grows_with_the_steps_to_one_and_stays() -> None:
    residual, branch_BTH = made("scheduled", warm_up=4)
    assert isinstance(residual, Scheduled)
    for weight in (0.0, 0.25, 0.5, 0.75, 1.0, 1.0):
        expected_BTH = HIDDEN_BTH + weight * branch_BTH
        torch.testing.assert_close(residual(INNER_BTI, HIDDEN_BTH), expected_BTH)
        residual.count_examples(17)
    assert "steps" in residual.state_dict()


def test_rms_norm_divides_by_the_root_of_the_mean_square() -> None:
    norm = RMSNorm(8, eps=1e-3).double()
    nn.init.uniform_(norm.weight)
    root_BT1 = (HIDDEN_BTH.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(norm(HIDDEN_BTH), norm.weight * HIDDEN_BTH / root_BT1)
    assert norm.float()(HIDDEN_BTH.bfloat16()).dtype == torch.float32
