r"""Normalized gradients: every tensor's gradient gets the same norm, so that only directions count.

    g <- g / ||g|| ** power

for each parameter by itself; a gradient of 0 stays. Losses and layers of any scale then learn at
one rate, which is for `sgdm` what Adam's second moment does. Clipping (`train.clip_norm`) comes
before it. Source: https://kexue.fm/archives/6418 (transforms of the gradient).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nlpkit.config import Share
from nlpkit.optim.wrapped import Place


@dataclass(frozen=True)
class Wrapper:
    """Wraps the step."""

    power: Share = 1.0
    """1 for gradients of norm 1, 0 for gradients as they are."""

    def step(self, place: Place, inner: Callable[[], None]) -> None:
        """A step of the optimizer along the normalized gradients."""
        if self.power == 0:
            inner()
            return
        for parameter in place.parameters:
            if parameter.grad is None:
                continue
            norm = parameter.grad.norm()
            parameter.grad.div_(torch.where(norm > 0, norm**self.power, 1.0))
        inner()
