"""Two-rate flooding: a step up the gradient, then a longer one down, which drifts to flat places.

    theta' = theta + ascent g(theta)
    theta''= theta' - descent g(theta')
           = theta - (descent - ascent) G,     G = (descent g(theta') - ascent g(theta))
                                                   / (descent - ascent)

The optimizer gets G in place of g = grad L and moves at a rate of its own; with gradient descent at
rate descent - ascent it is the two steps. To first order of the rates G is the gradient of

    L + ascent descent / (2 (descent - ascent)) ||grad L||^2

so that no level of the loss has to be known. Both gradients are those of the whole step's mean
loss, over all micro-batches and processes, and draw the same dropout. A step takes twice the time.

Source: https://kexue.fm/archives/7643 (the version without a level). Differs from it: both steps
are of one batch, as in Wang et al. 2017, Backstitch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nlpkit.config import LearningRate, Weight
from nlpkit.training.gradient_cache import random_states, set_random_states
from nlpkit.training.perturbation import examples_of, own_gradients, put_back, summed
from nlpkit.training.step import MicroBatches, TrainingStep


@dataclass(frozen=True)
class Technique:
    """Wraps `backward`. Raises ValueError where the way down is not longer than the way up."""

    descent: LearningRate = 0.05
    """Rate of the way down."""
    ascent: Weight = 0.02
    """Rate of the way up; 0 for none."""

    def __post_init__(self) -> None:
        if self.ascent >= self.descent:
            raise ValueError(
                f"ascent: expected less than descent {self.descent}, got {self.ascent}"
            )

    def backward(
        self, step: TrainingStep, inner: Callable[..., torch.Tensor], micro_batches: MicroBatches
    ) -> torch.Tensor:
        """sums_2, of losses before the way up and of examples, (2,); G is left in the
        parameters."""
        if self.ascent == 0:
            return inner(micro_batches)
        accelerator = step.state.accelerator
        before = random_states(accelerator.device)
        sums_2 = inner(micro_batches)
        own = own_gradients(step.parameters)
        whole = summed(accelerator, own)
        rate = self.ascent / examples_of(accelerator, sums_2)
        step.state.optimizer.zero_grad()
        with put_back(step.parameters):
            with torch.no_grad():
                torch._foreach_add_(list[torch.Tensor](step.parameters), whole, alpha=rate)
            set_random_states(accelerator.device, before)
            inner(micro_batches)
        for parameter, gradient in zip(step.parameters, own, strict=True):
            if parameter.grad is not None:
                parameter.grad.mul_(self.descent).sub_(gradient, alpha=self.ascent)
                parameter.grad.div_(self.descent - self.ascent)
        return sums_2
