r"""Lookahead: after every k steps the weights go back a part of the way.

    every k steps:   slow <- slow + alpha (theta - slow),   theta <- slow

The optimizer's moments stay as they are. Between two such steps the model has the fast weights
theta, which are the ones evaluated. Source: Zhang et al. 2019, arxiv.org/abs/1907.08610,
algorithm 1; https://kexue.fm/archives/7094.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nlpkit.config import Positive, Share
from nlpkit.optim.wrapped import Place


@dataclass(frozen=True)
class Wrapper:
    """Wraps the step."""

    k: Positive = 5
    """Steps between two returns."""
    alpha: Share = 0.5
    """Part of the way that is kept; 1 for all of it, which changes nothing."""

    def step(self, place: Place, inner: Callable[[], None]) -> None:
        """A step of the optimizer; each k-th one ends at the slow weights."""
        if self.alpha == 1:
            inner()
            return
        memory = place.memory
        if not memory:
            memory["steps"] = torch.zeros((), dtype=torch.int64)
            for number, parameter in enumerate(place.parameters):
                memory[f"slow.{number}"] = parameter.detach().clone()
        inner()
        memory["steps"] += 1
        if int(memory["steps"]) % self.k:
            return
        slow = [memory[f"slow.{number}"] for number in range(len(place.parameters))]
        torch._foreach_lerp_(slow, place.parameters, self.alpha)
        torch._foreach_copy_(place.parameters, slow)
