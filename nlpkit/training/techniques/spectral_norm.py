"""Spectral norm: a penalty on the largest singular value of each matrix of the encoder.

    L' = L + weight * sum over W of ||W||_2^2,      gradient of it by W: 2 weight sigma u v^T
    v <- W^T u / ||W^T u||,    u <- W v / ||W v||,    sigma = u^T W v      once a step

The encoder is then a function that changes less with its input. The gradient is added once a step,
to that of the mean loss: it does not depend on how the batch was cut. u is remembered from step to
step, so that sigma comes near ||W||_2 while W moves slowly. Matrices are all weights of two
dimensions but embeddings; what the loss does not reach is left alone.

`spectral_reparametrisation` fixes the norms instead, `spectral_bound` holds them below a bound.

Source: Yoshida and Miyato 2017, arxiv.org/abs/1705.10941, algorithm 1;
https://kexue.fm/archives/6051.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from nlpkit.config import Weight
from nlpkit.training.perturbation import random_like
from nlpkit.training.step import Total, TrainingStep


@dataclass(frozen=True)
class Technique:
    """Wraps `combine`."""

    weight: Weight = 1e-4
    """Of the sum of the squared norms; 0 for none."""

    def combine(
        self, step: TrainingStep, inner: Callable[..., Total], sums_2: torch.Tensor
    ) -> Total:
        """The gradient of the mean loss and the penalty, and the total of both."""
        total = inner(sums_2)
        if self.weight == 0:
            return total
        squares = 0.0
        for name, matrix_IO in matrices(step.state.model):
            if matrix_IO.grad is None:
                continue
            sigma, u_I, v_O = largest_singular(step, f"spectral_norm.{name}", matrix_IO)
            matrix_IO.grad.add_(torch.outer(u_I, v_O), alpha=2 * self.weight * sigma)
            squares += sigma**2
        return replace(total, loss=total.loss + self.weight * squares)


def largest_singular(
    step: TrainingStep, key: str, matrix_IO: torch.Tensor, iterations: int = 1
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """(sigma, u_I, v_O) of a matrix: some iterations on from the u that memory has under the key, or
    from a random one."""
    memory = step.state.memory
    w_IO = matrix_IO.detach()
    if key not in memory:
        memory[key] = random_like(w_IO[:, 0], step.state.config.seed, 0)
    u_I = memory[key]
    for _ in range(iterations):
        v_O = nn.functional.normalize(w_IO.T @ u_I, dim=0)
        u_I = nn.functional.normalize(w_IO @ v_O, dim=0)
    memory[key] = u_I
    return float(u_I @ w_IO @ v_O), u_I, v_O


def matrices(model: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """(name, weights) of the encoder's trained parameters of two dimensions, but embeddings."""
    for name, module in model.encoder.named_modules():
        if isinstance(module, nn.Embedding):
            continue
        for own, parameter in module.named_parameters(name, recurse=False):
            if parameter.dim() == 2 and parameter.requires_grad:
                yield own, parameter
