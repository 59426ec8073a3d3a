"""Each loss over its own value: sum_i L_i / sg(L_i), whose gradient is that of sum_i log L_i.

A loss times any constant gives the same step. It minimises the product of the losses, as their
geometric mean does (`generalised_mean` with exponent 0, which takes steps of another length).
Source: https://kexue.fm/archives/8870.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nlpkit.training.balance import reciprocal


@dataclass(frozen=True)
class Balance:
    """Needs losses above 0."""

    def weights(
        self,
        losses_L: torch.Tensor,
        gram: Callable[[], torch.Tensor],
        memory: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """1 / L_i: (L,)."""
        return reciprocal(losses_L)
