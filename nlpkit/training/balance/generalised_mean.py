r"""The generalised mean of the losses, between their least and their largest.

    M = n (1/n sum_i L_i^a)^(1/a),      w_i = dM/dL_i = (L_i / m)^(a - 1),      m = M / n

a = 1 is the plain sum, 0 the geometric mean (the limit: m = exp(mean of log L_i)), -infinity n times
the least loss, infinity n times the largest. Source: https://kexue.fm/archives/8870. Differs from
it: the factor n, so that equal losses give the step of the plain sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch

from nlpkit.config import Range


@dataclass(frozen=True)
class Balance:
    """Needs losses above 0; others are left out."""

    exponent: Annotated[float, Range(-100, 100)] = 0.0
    """a: the larger, the more the largest loss counts."""

    def weights(
        self,
        losses_L: torch.Tensor,
        gram: Callable[[], torch.Tensor],
        memory: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """(L,), computed from logarithms, so that no power runs out of range."""
        counts_L = losses_L > 0
        log_L = losses_L[counts_L].log()
        weights_L = torch.zeros_like(losses_L)
        weights_L[counts_L] = torch.exp((self.exponent - 1) * (log_L - self._log_mean(log_L)))
        return weights_L

    def _log_mean(self, log_L: torch.Tensor) -> torch.Tensor:
        """log m of losses of which the logarithms are given."""
        if self.exponent == 0 or len(log_L) == 0:
            return log_L.mean()
        log_sum = (self.exponent * log_L).logsumexp(0)
        return (log_sum - math.log(len(log_L))) / self.exponent
