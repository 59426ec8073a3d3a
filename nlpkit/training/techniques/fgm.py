"""FGM: training on the embeddings that hurt most nearby (adversarial training).

    delta = epsilon g / ||g||,      g = gradient of the step's loss by the embedding table E
    update with the gradients at E + delta instead of those at E

`g` is that of the whole step, over all micro-batches and processes, so that a step does not depend
on how its batch was cut. A step takes twice the time.

Source: Miyato et al. 2016, arxiv.org/abs/1605.07725; https://kexue.fm/archives/7234, which moves
the embedding table instead of the embedded tokens, as here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nlpkit.config import Weight
from nlpkit.training.perturbation import own_gradients, put_back, summed, token_table
from nlpkit.training.step import MicroBatches, TrainingStep


@dataclass(frozen=True)
class Technique:
    """Wraps `backward`."""

    epsilon: Weight = 0.5
    """Norm of the change of the embedding table; 0 for none."""

    def backward(
        self, step: TrainingStep, inner: Callable[..., torch.Tensor], micro_batches: MicroBatches
    ) -> torch.Tensor:
        """sums_2, of losses and of examples, (2,), at the changed table,
        which is put back afterwards; the gradients are left in the parameters."""
        if self.epsilon == 0:
            return inner(micro_batches)
        table = token_table(step.state.model)
        inner(micro_batches)
        (gradient,) = summed(step.state.accelerator, own_gradients([table]))
        step.state.optimizer.zero_grad()
        with put_back([table]):
            with torch.no_grad():
                table.add_(gradient, alpha=self.epsilon / (float(gradient.norm()) + 1e-8))
            return inner(micro_batches)
