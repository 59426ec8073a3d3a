r"""Step sizes that learn: each weight's rate grows while its gradient keeps its sign, and shrinks
while the sign alternates.

    log nu <- clip(log nu + gamma p),   theta <- theta + nu (the optimizer's update, with its decay)
    p = sign(g_before g)      or, with product="plain",      p = g_before g

with nu = 1 at first, held between 1 / most and most. With `sgdm`'s update and the plain product
this is gradient descent on the rates by exponentiated gradients; the sign makes gamma free of the
loss's scale. Source: https://kexue.fm/archives/8968, after Amid et al. 2022,
arxiv.org/abs/2202.00145. Differs from both: the bounds, and that any optimizer may give the update.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch

from nlpkit.config import Range, Weight
from nlpkit.optim.wrapped import Place


@dataclass(frozen=True)
class Wrapper:
    """Wraps the step."""

    gamma: Weight = 0.01
    """Rate of the logarithms of the step sizes; 0 for step sizes that stay."""
    most: Annotated[float, Range(1, 1e9)] = 10.0
    """Largest factor by which a step size may grow or shrink."""
    product: Literal["sign", "plain"] = "sign"
    """What counts of two successive gradients: the sign of their product, or the product."""

    def step(self, place: Place, inner: Callable[[], None]) -> None:
        """A step of the optimizer, stretched by the step size of each weight."""
        if self.gamma == 0:
            inner()
            return
        before = {}
        for number, parameter in enumerate(place.parameters):
            if parameter.grad is not None:
                before[number] = parameter.detach().clone()
                self._learn(place.memory, number, parameter.grad)
        inner()
        for number, start in before.items():
            parameter = place.parameters[number]
            size = place.memory[f"log_size.{number}"].exp()
            parameter.copy_(torch.lerp(start, parameter, size))

    def _learn(self, memory: dict[str, torch.Tensor], number: int, gradient: torch.Tensor) -> None:
        """Takes in a gradient: changes the step sizes of a parameter, and keeps the gradient."""
        if f"gradient.{number}" not in memory:
            memory[f"log_size.{number}"] = torch.zeros_like(gradient)
            memory[f"gradient.{number}"] = gradient.clone()
            return
        product = memory[f"gradient.{number}"] * gradient
        if self.product == "sign":
            product.sign_()
        bound = math.log(self.most)
        memory[f"log_size.{number}"].add_(product, alpha=self.gamma).clamp_(-bound, bound)
        memory[f"gradient.{number}"].copy_(gradient)
