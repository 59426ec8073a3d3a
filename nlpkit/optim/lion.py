r"""Lion: every weight moves by the same amount, in the direction that momentum and gradient agree
on.

    c = beta1 m + (1 - beta1) g,   theta <- theta - eta (sign(c) + lambda theta)
    m <- beta2 m + (1 - beta2) g

One moment instead of AdamW's two. Source: Chen et al. 2023, arxiv.org/abs/2302.06675, algorithm 2,
whose authors advise a third to a tenth of AdamW's rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nlpkit.optim.groups import Group

# A short run a rate chose that of "pretrained" (tests/benchmarks/training_science.md), above the
# authors' advice; the others are guesses of their scale by it.
LEARNING_RATES = {"convolutions": 3e-4, "random": 3e-4, "pretrained": 3e-4, "elsewhere": 6e-6}
SUITS = ()
BETAS = (0.9, 0.99)


def new_optimizer(groups: Sequence[Group], bf16: bool) -> Lion:
    """It computes in the precision of the weights."""
    return Lion([group.settings() for group in groups])


class Lion(torch.optim.Optimizer):
    """`groups` have the keys `params`, `lr` and `weight_decay`."""

    def __init__(self, groups: Sequence[dict[str, Any]]):
        super().__init__(groups, {"lr": 1e-4, "weight_decay": 0.0})

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
                momentum = state["momentum"]
                direction = momentum.lerp(parameter.grad, 1 - BETAS[0]).sign_()
                momentum.lerp_(parameter.grad, 1 - BETAS[1])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"])
