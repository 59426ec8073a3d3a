"""Gradients of one length: w_i = 1 / ||g_i|| over the parameters of the encoder.

A loss times any constant, or with any constant added, gives the same step. Of two losses neither
rises along the sum of their unit gradients, to first order. Source:
https://kexue.fm/archives/8896.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nlpkit.training.balance import reciprocal


@dataclass(frozen=True)
class Balance:
    """Needs no loss above 0."""

    def weights(
        self,
        losses_L: torch.Tensor,
        gram: Callable[[], torch.Tensor],
        memory: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """1 / ||g_i||: (L,)."""
        return reciprocal(gram().diagonal().sqrt())
