"""An exponential moving average of the weights, with bias correction.

    average <- decay * average + (1 - decay) * weights,   corrected = average / (1 - decay ** steps)

from an average of zero, so that it is an honest mean of the weights seen from the first step on.
Source: https://kexue.fm/archives/8888, whose author warns that without the correction short runs
look broken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


class WeightAverage:
    """The average of a model's trainable weights, kept beside them in float32."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.steps = 0
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.average = {
            name: torch.zeros_like(p, dtype=torch.float32) for name, p in self.weights.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights after an optimiser step."""
        self.steps += 1
        weights = [weight.float() for weight in self.weights.values()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - self.decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model has the corrected average as its weights."""
        if self.steps == 0:
            yield
            return
        kept = {name: weight.detach().clone() for name, weight in self.weights.items()}
        correction = 1 - self.decay**self.steps
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.average[name] / correction)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(kept[name])
