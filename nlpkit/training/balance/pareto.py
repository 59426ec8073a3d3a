r"""The shortest gradient between those of the losses: along it no loss rises, to first order.

    min_a ||sum_i a_i g_i||^2,   a_i >= 0,  sum_i a_i = 1,      w_i = n a_i

At the minimum u = sum_i a_i g_i has <g_i, u> >= ||u||^2 for all i; where u = 0 no direction lowers
all losses, and the encoder stays. Frank-Wolfe with line search finds it from the inner products
alone, for two losses in one step, exactly:

    t = argmin_i <g_i, u>,   u <- u + r (g_t - u),   r = clip(<u - g_t, u> / ||u - g_t||^2, 0, 1)

Source: https://kexue.fm/archives/8896; Sener and Koltun 2018, arxiv.org/abs/1810.04650, algorithm 2,
after which each head learns from its own loss alone, whatever a is. Differs from them: the factor n,
so that equal a give the step of the plain sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from nlpkit.config import Positive


@dataclass(frozen=True)
class Balance:
    """Weighs for the encoder alone."""

    encoder_alone: ClassVar[bool] = True

    iterations: Positive = 250
    """Most steps of Frank-Wolfe; for two losses one is enough."""

    def weights(
        self,
        losses_L: torch.Tensor,
        gram: Callable[[], torch.Tensor],
        memory: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """n a_i: (L,). A loss without a gradient is left out: it rises in no direction."""
        gram_LL = gram().cpu().numpy()
        live = np.flatnonzero(gram_LL.diagonal() > 0)
        weights_L = np.zeros(len(gram_LL))
        if len(live):
            found = shortest(gram_LL[np.ix_(live, live)], self.iterations)
            weights_L[live] = len(live) * found
        return torch.as_tensor(weights_L).to(losses_L)


def shortest(gram_LL: np.ndarray, iterations: int) -> np.ndarray:
    """The convex weights (L,) of the shortest mixture of vectors whose inner products are given,
    float64."""
    weights_L = np.zeros(len(gram_LL))
    weights_L[gram_LL.diagonal().argmin()] = 1
    for _ in range(iterations):
        products_L = gram_LL @ weights_L
        square = weights_L @ products_L
        nearest = products_L.argmin()
        gap = square - products_L[nearest]
        if gap <= 1e-12 * gram_LL.diagonal().max():
            break
        distance = square - 2 * products_L[nearest] + gram_LL[nearest, nearest]
        rate = min(1.0, gap / distance)
        weights_L *= 1 - rate
        weights_L[nearest] += rate
    return weights_L
