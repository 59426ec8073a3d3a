"""Embedding gradient penalty: the loss is to change little with the embedding table E.

    L' = L + weight / 2 * ||grad_E L||^2

L is the mean loss of the whole step, over all micro-batches and processes; so is its gradient. FGM
approximates it, without second gradients. A step takes about three times the time.

Source: https://kexue.fm/archives/7234.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from nlpkit.config import Weight
from nlpkit.training.gradient_penalty import backward_with_penalty
from nlpkit.training.perturbation import token_table
from nlpkit.training.step import MicroBatches, TrainingStep


@dataclass(frozen=True)
class Technique:
    """Wraps `backward`."""

    needs_objective: ClassVar[bool] = True

    weight: Weight = 1.0
    """Of half the squared norm; 0 for none."""

    def backward(
        self, step: TrainingStep, inner: Callable[..., torch.Tensor], micro_batches: MicroBatches
    ) -> torch.Tensor:
        """sums_2, of losses with the penalty and of examples, (2,); the gradients are left in the
        parameters."""
        if self.weight == 0:
            return inner(micro_batches)
        table = [token_table(step.state.model)]
        return backward_with_penalty(step, inner, micro_batches, table, self.weight)
