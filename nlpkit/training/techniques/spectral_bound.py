"""Spectral bound: no matrix of the encoder changes a vector's length by more than a factor.

    W <- W min(1, bound / sigma(W))      after each update

sigma(W) is the largest singular value, by power iteration as in `spectral_norm`: one iteration a
step, so that in the first steps, and where W moves fast, it comes out too small and W may lie above
the bound for a while. The matrices are the same. A moving average of the weights takes them as they
were before they were cut.

Source: Gouk et al. 2018, arxiv.org/abs/1804.04368 (the projection);
https://kexue.fm/archives/6051 (W / sigma(W), of which this is the form that leaves alone what lies
below the bound).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nlpkit.config import Weight
from nlpkit.training.step import TrainingStep
from nlpkit.training.techniques.spectral_norm import largest_singular, matrices


@dataclass(frozen=True)
class Technique:
    """Wraps `update`."""

    bound: Weight = 10.0
    """Of every matrix's largest singular value; 0 for none."""

    def update(self, step: TrainingStep, inner: Callable[[], None]) -> None:
        """The optimizer's move, and then the matrices cut to the bound."""
        inner()
        if self.bound == 0:
            return
        for name, matrix_IO in matrices(step.state.model):
            sigma, _, _ = largest_singular(step, f"spectral_bound.{name}", matrix_IO)
            if sigma > self.bound:
                with torch.no_grad():
                    matrix_IO.mul_(self.bound / sigma)
