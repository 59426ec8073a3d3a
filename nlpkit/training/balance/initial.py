"""Losses in units of what they were at the start: w_i = 1 / mean of L_i over the first steps.

Until so many steps are done, it is the mean over those so far. Source:
https://kexue.fm/archives/8870.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nlpkit.config import Positive
from nlpkit.training.balance import reciprocal


@dataclass(frozen=True)
class Balance:
    """Remembers the losses of the first steps."""

    steps: Positive = 10
    """Whose mean is the unit; a technique that passes through a step several times counts each."""

    def weights(
        self,
        losses_L: torch.Tensor,
        gram: Callable[[], torch.Tensor],
        memory: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """(L,), the same from step `steps` on."""
        name = "balance.initial"
        sums_L = memory.get(f"{name}.sums", torch.zeros_like(losses_L))
        count = memory.get(f"{name}.count", losses_L.new_zeros(()))
        if count < self.steps:
            sums_L = sums_L + losses_L
            count = count + 1
            memory[f"{name}.sums"] = sums_L
            memory[f"{name}.count"] = count
        return reciprocal(sums_L / count)
