"""VAT: the prediction is to change little along the direction in which it would change most.

    d = unit(random);   d <- unit(grad_r KL(p(E) || p(E + r)) at r = xi d), `iterations` times
    loss' = loss + weight * KL(p(E) || p(E + epsilon d)),      p(E) fixed

E is the embedding table, with the norm of all its numbers; KL is the mean over the examples of the
whole step, over all micro-batches and processes, so that a step does not depend on how its batch
was cut. All passes of a step draw the same dropout. It needs no labels: the lines of
`train.unlabelled` are examples of the step for it as those with gold are, and for it alone. A step
takes about (iterations + 2.5) times the time, with unlabelled lines (2 iterations + 4) times.

Source: Miyato et al. 2017, arxiv.org/abs/1704.03976, section 3;
https://kexue.fm/archives/7466 for the table in place of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch

from nlpkit.config import Positive, Range, Weight
from nlpkit.training.distributions import kl_divergence, log_probs_of, refuse_without
from nlpkit.training.gradient_cache import random_states, set_random_states
from nlpkit.training.perturbation import put_back, random_like, summed, token_table, unit
from nlpkit.training.state import TrainState
from nlpkit.training.step import MicroBatches, TrainingStep


@dataclass(frozen=True)
class Technique:
    """Wraps `backward`."""

    takes_unlabelled: ClassVar[bool] = True

    epsilon: Weight = 1.0
    """Norm of the change of the embedding table; 0 for none."""
    xi: Annotated[float, Range(above=0, most=1e9)] = 10.0
    """Norm of the change at which the direction is looked for."""
    weight: Weight = 1.0
    """Of the divergence, which is a sum over the decisions of an example: a task that decides on
    every span wants less than one that chooses a label; 0 for none."""
    iterations: Positive = 1
    """Of the search for the direction."""

    def check(self, model: Any) -> None:
        """Raises SettingsError for a model that predicts no distributions."""
        refuse_without(model, "vat")

    def backward(
        self, step: TrainingStep, inner: Callable[..., torch.Tensor], micro_batches: MicroBatches
    ) -> torch.Tensor:
        """sums_2, of losses with the divergence and of examples, (2,); the gradients are left in
        the parameters."""
        if 0 in (self.epsilon, self.weight):
            return inner(micro_batches)
        state = step.state
        device = state.accelerator.device
        before = random_states(device)
        sums_2 = inner(micro_batches)
        after = random_states(device)
        set_random_states(device, before)
        with torch.no_grad():
            clean = [log_probs_of(state, b) for b in step.all_micro_batches(micro_batches)]
        factor = self.weight * _share_with_gold(state, sums_2, clean)

        def divergences() -> Iterator[torch.Tensor]:
            """The sum of each micro-batch, at the table as it is now."""
            set_random_states(device, before)
            batches = step.all_micro_batches(micro_batches)
            for batch, p_BNL in zip(batches, clean, strict=True):
                yield kl_divergence(p_BNL, log_probs_of(state, batch)).sum()

        table = token_table(state.model)
        with put_back([table]) as (original,):
            direction = unit(random_like(table, state.config.seed, state.step))
            for _ in range(self.iterations):
                table.data.copy_(original + self.xi * direction)
                gradient = torch.zeros_like(table)
                for divergence in divergences():
                    gradient += torch.autograd.grad(divergence, table)[0]
                (gradient,) = summed(state.accelerator, [gradient])
                direction = unit(gradient)
            table.data.copy_(original + self.epsilon * direction)
            for divergence in divergences():
                (factor * divergence).backward()
                sums_2[0] += factor * divergence.detach()
        set_random_states(device, after)
        return sums_2


def _share_with_gold(
    state: TrainState, sums_2: torch.Tensor, clean: Sequence[torch.Tensor]
) -> float:
    """The examples with gold over all examples of the step, of all processes: by it a sum over all
    of them becomes a mean where `combine` divides by those with gold alone."""
    if state.unlabelled is None:
        return 1.0
    own = sums_2.new_tensor([float(sums_2[1]), sum(len(p_BNL) for p_BNL in clean)])
    labelled, every = state.accelerator.reduce(own, "sum").tolist()
    return labelled / every
