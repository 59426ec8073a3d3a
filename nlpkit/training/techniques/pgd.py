"""PGD: FGM in several smaller steps, which together stay near the original embeddings.

    E_(k+1) = project(E_k + step_size g_k / ||g_k||),      g_k = gradient of the step's loss by E_k
    project(E') = E + (E' - E) min(1, epsilon / ||E' - E||)
    update with the gradients at E_steps instead of those at E

E is the embedding table, with the norm of all its numbers. Every `g_k` is that of the whole step,
over all micro-batches and processes. A step takes (steps + 1) times the time.

Source: Madry et al. 2017, arxiv.org/abs/1706.06083, section 2; https://kexue.fm/archives/7234 for
the table in place of the inputs. Differs from the paper: the ball and the step are of the Euclidean
norm, and it starts at E.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nlpkit.config import Count, Weight
from nlpkit.training.perturbation import own_gradients, put_back, summed, token_table, unit
from nlpkit.training.step import MicroBatches, TrainingStep


@dataclass(frozen=True)
class Technique:
    """Wraps `backward`."""

    epsilon: Weight = 1.0
    """Largest norm of the change of the embedding table; 0 for none."""
    steps: Count = 3
    """Of ascent; 0 for none."""
    step_size: Weight = 0.3
    """Norm of a step."""

    def backward(
        self, step: TrainingStep, inner: Callable[..., torch.Tensor], micro_batches: MicroBatches
    ) -> torch.Tensor:
        """sums_2, of losses and of examples, (2,), at the changed table, which is put back
        afterwards; the gradients are left in the parameters."""
        if 0 in (self.epsilon, self.steps, self.step_size):
            return inner(micro_batches)
        table = token_table(step.state.model)
        with put_back([table]) as (original,):
            for _ in range(self.steps):
                inner(micro_batches)
                (gradient,) = summed(step.state.accelerator, own_gradients([table]))
                step.state.optimizer.zero_grad()
                change = table.detach() - original + self.step_size * unit(gradient)
                norm = float(change.norm())
                if norm > self.epsilon:
                    change *= self.epsilon / norm
                with torch.no_grad():
                    table.copy_(original + change)
            return inner(micro_batches)
