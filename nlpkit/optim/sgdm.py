r"""Gradient descent with momentum and decoupled weight decay.

    m <- beta m + (1 - beta) g,   theta <- theta - eta (m + lambda theta)

with m from zero, so that a rate means the same for any beta. `torch.optim.SGD` adds its decay to
the gradient instead, where the momentum takes it in. Source: Loshchilov and Hutter 2017,
arxiv.org/abs/1711.05101, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nlpkit.optim.groups import Group

# A short run a rate chose those of "random" and "pretrained", as `training_science.md` beside the
# benchmarks tells; the others are guesses of their scale.
LEARNING_RATES = {"convolutions": 1.0, "random": 1.0, "pretrained": 1.0, "elsewhere": 0.1}
SUITS = ()
MOMENTUM = 0.9


def new_optimizer(groups: Sequence[Group], bf16: bool) -> Sgdm:
    """It computes in the precision of the weights."""
    return Sgdm([group.settings() for group in groups])


def moments(group: dict[str, Any]) -> dict[str, tuple[float, int]]:
    """See `nlpkit.optim`."""
    return {"momentum": (MOMENTUM, 1)}


class Sgdm(torch.optim.Optimizer):
    """`groups` have the keys `params`, `lr` and `weight_decay`."""

    def __init__(self, groups: Sequence[dict[str, Any]]):
        super().__init__(groups, {"lr": 1.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(state["momentum"], alpha=-group["lr"])
