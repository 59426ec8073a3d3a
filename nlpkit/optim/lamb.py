r"""LAMB: Adam whose update of each matrix is as long as the matrix, times the rate.

    u = m' / (sqrt(v') + eps) + lambda theta,   theta <- theta - eta ||theta|| / ||u|| u

where m' and v' are Adam's moments with bias correction. The factor is 1 where a norm is 0, and for
vectors (biases, norms), as in the authors' program. It is for very large batches: the rate then
says which share of a matrix one step changes.

Source: You et al. 2019, arxiv.org/abs/1904.00962, algorithm 2; https://kexue.fm/archives/7094.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from nlpkit.optim.groups import Group

# A short run a rate chose that of "pretrained" (tests/benchmarks/training_science.md); the others
# are guesses of their scale.
LEARNING_RATES = {"convolutions": 3e-3, "random": 3e-3, "pretrained": 3e-3, "elsewhere": 3e-4}
SUITS = ()
BETAS = (0.9, 0.999)
EPSILON = 1e-6


def new_optimizer(groups: Sequence[Group], bf16: bool) -> Lamb:
    """It computes in the precision of the weights."""
    return Lamb([group.settings() for group in groups])


def moments(group: dict[str, Any]) -> dict[str, tuple[float, int]]:
    """See `nlpkit.optim`."""
    return {"mean": (BETAS[0], 1), "square": (BETAS[1], 2)}


class Lamb(torch.optim.Optimizer):
    """`groups` have the keys `params`, `lr` and `weight_decay`."""

    def __init__(self, groups: Sequence[dict[str, Any]]):
        # `fused` tells torch to keep the step counts on the device when a state is loaded
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0, "fused": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        gradient = parameter.grad
        assert gradient is not None
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - BETAS[0])
        state["square"].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        mean = state["mean"] / _correction(BETAS[0], state["step"])
        square = state["square"] / _correction(BETAS[1], state["step"])
        update = mean / (square.sqrt() + EPSILON)
        update.add_(parameter, alpha=group["weight_decay"])
        if parameter.dim() > 1:
            update.mul_(_trust(parameter.norm(), update.norm()))
        parameter.add_(update, alpha=-group["lr"])


def _correction(beta: float, step: torch.Tensor) -> torch.Tensor:
    """1 - beta ** step, without the loss of digits that the first steps have in float32."""
    return -torch.expm1(step * math.log(beta))


def _trust(weights: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    """The ratio of two norms; 1 where one of them is 0."""
    known = (weights > 0) & (update > 0)
    return torch.where(known, weights / update.clamp_min(torch.finfo(update.dtype).tiny), 1.0)
