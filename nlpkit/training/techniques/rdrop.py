"""R-Drop: two passes with different dropout are to predict the same.

    loss = (loss_1 + loss_2) / 2 + weight * (KL(p_1 || p_2) + KL(p_2 || p_1)) / 2

p_1 and p_2 are the distributions that the model predicts for an example in the two passes. Each
example has its own divergence, so that a step does not depend on how its batch was cut but for
dropout. A step takes twice the time.

Source: Liang et al. 2021, arxiv.org/abs/2106.14448, whose alpha is 2 weight where its
losses are added; https://kexue.fm/archives/8496.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from nlpkit.config import Weight
from nlpkit.training.distributions import kl_divergence, recorded_outputs, refuse_without
from nlpkit.training.step import TrainingStep


@dataclass(frozen=True)
class Technique:
    """Wraps `objective`."""

    weight: Weight = 1.0
    """Of the divergence, a sum over the decisions of an example; 0 for a single pass without
    it."""

    def check(self, model: Any) -> None:
        """Raises SettingsError for a model that predicts no distributions."""
        refuse_without(model, "rdrop")

    def objective(
        self, step: TrainingStep, inner: Callable[..., torch.Tensor], batch: Any
    ) -> torch.Tensor:
        """loss_B with the divergence of each example."""
        if self.weight == 0:
            return inner(batch)
        model: Any = step.state.model
        with recorded_outputs(model) as outputs:
            mean_B = (inner(batch) + inner(batch)) / 2
        one_BNL = model.log_probs(outputs[0])
        other_BNL = model.log_probs(outputs[-1])
        there_B = kl_divergence(one_BNL, other_BNL)
        back_B = kl_divergence(other_BNL, one_BNL)
        return mean_B + self.weight * (there_B + back_B) / 2
