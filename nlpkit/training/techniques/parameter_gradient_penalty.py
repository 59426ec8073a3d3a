"""Parameter gradient penalty: what steps of a finite size add to gradient descent by themselves.

    L' = L + weight / 4 * ||grad_theta L||^2

Gradient descent with rate r follows the flow of L' with weight = r, not that of L: so the penalty
gives a small rate what a large one has. L is the mean loss of the whole step, theta all that is
trained. A step takes about three times the time and holds the gradient twice.

Source: Barrett and Dherin 2020, arxiv.org/abs/2009.11162;
https://kexue.fm/archives/7787.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from nlpkit.config import Weight
from nlpkit.training.gradient_penalty import backward_with_penalty
from nlpkit.training.step import MicroBatches, TrainingStep


@dataclass(frozen=True)
class Technique:
    """Wraps `backward`."""

    needs_objective: ClassVar[bool] = True

    weight: Weight = 0.1
    """Of a quarter of the squared norm, the rate of gradient descent that it stands for; 0 for
    none."""

    def backward(
        self, step: TrainingStep, inner: Callable[..., torch.Tensor], micro_batches: MicroBatches
    ) -> torch.Tensor:
        """sums_2, of losses with the penalty and of examples, (2,); the gradients are left in the
        parameters."""
        if self.weight == 0:
            return inner(micro_batches)
        return backward_with_penalty(step, inner, micro_batches, step.parameters, self.weight / 2)
