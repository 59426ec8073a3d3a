"""Flooding: a loss that falls below a level is made to rise again.

    loss' = |loss - level| + level

so that training goes to and fro around the level instead of on to 0, and drifts to where the loss
is flat. `loss` is the mean over the whole step: the gradient of a step changes its sign where the
loss lies below the level, however the batch was cut.

Source: Ishida et al. 2020, arxiv.org/abs/2002.08709; https://kexue.fm/archives/7643.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nlpkit.config import Weight
from nlpkit.training.step import Total, TrainingStep


@dataclass(frozen=True)
class Technique:
    """Wraps `combine`."""

    level: Weight = 0.1
    """Of the loss, in nats an example; 0 for none."""

    def combine(
        self, step: TrainingStep, inner: Callable[..., Total], sums_2: torch.Tensor
    ) -> Total:
        """The gradient of the mean loss, turned around where the loss lies below the level."""
        total = inner(sums_2)
        if total.loss < self.level and self.level:
            torch._foreach_neg_(step.gradients())
        return total
