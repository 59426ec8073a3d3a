r"""Spectral reparametrisation: each matrix of the encoder stands for W / sigma(W), times a norm.

    f(norm W / sigma(W)) in place of f(W),      sigma(W): largest singular value, u and v its vectors
    gradient by W   g - <g, W> / norm u v^T,    where sigma(W) = norm,  g = gradient of f there

f does not change with the length of W, so that W is given the length norm before the first step and
after each update: the weights that are evaluated and saved are then those that f sees. What is left
of the reparametrisation is the gradient, which no longer makes W longer along u v^T; in that it
differs from `spectral_bound`, which cuts what an update has made too long and leaves shorter
matrices alone, and from `spectral_norm`, a penalty. sigma(W) is found as there, one iteration a
step, many before the first one. The matrices are the same. A moving average of the weights takes
them before they get their length back.

With norm=1 the sizes of pretrained weights are lost; `of_start` keeps them.

Source: Miyato et al. 2018, arxiv.org/abs/1802.05957, equations 8 to 12;
https://kexue.fm/archives/6051. Differs from them: the length of W is put back after each update, by
which the rate of a step does not fall as W grows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nlpkit.config import Weight
from nlpkit.training.step import MicroBatches, TrainingStep
from nlpkit.training.techniques.spectral_norm import largest_singular, matrices

NAME = "spectral_reparametrisation"
FIRST = 100
"""Iterations before the first step."""


@dataclass(frozen=True)
class Technique:
    """Wraps `backward` and `update`."""

    norm: Weight = 1.0
    """Of every matrix: its largest singular value; 0 for no reparametrisation."""
    of_start: bool = False
    """Whether `norm` is a multiple of that which each matrix has at the start."""

    def backward(
        self, step: TrainingStep, inner: Callable[..., torch.Tensor], micro_batches: MicroBatches
    ) -> torch.Tensor:
        """As without; before the first step the matrices get their length."""
        if self.norm:
            memory = step.state.memory
            for name, matrix_IO in matrices(step.state.model):
                if f"{NAME}.norm.{name}" not in memory:
                    sigma, _, _ = largest_singular(step, f"{NAME}.{name}", matrix_IO, FIRST)
                    norm = self.norm * sigma if self.of_start else self.norm
                    memory[f"{NAME}.norm.{name}"] = matrix_IO.new_tensor(norm)
                    self._lengthen(step, name, matrix_IO)
        return inner(micro_batches)

    def update(self, step: TrainingStep, inner: Callable[[], None]) -> None:
        """The optimizer's move along the gradient by W, and then W with its length again."""
        if self.norm == 0:
            inner()
            return
        for name, matrix_IO in matrices(step.state.model):
            if matrix_IO.grad is not None:
                sigma, u_I, v_O = largest_singular(step, f"{NAME}.{name}", matrix_IO)
                along = float((matrix_IO.grad * matrix_IO.detach()).sum())
                if sigma:
                    matrix_IO.grad.add_(torch.outer(u_I, v_O), alpha=-along / sigma)
        inner()
        for name, matrix_IO in matrices(step.state.model):
            self._lengthen(step, name, matrix_IO)

    def _lengthen(self, step: TrainingStep, name: str, matrix_IO: torch.Tensor) -> None:
        """Gives a matrix its norm; one of zeros stays."""
        sigma, _, _ = largest_singular(step, f"{NAME}.{name}", matrix_IO)
        norm = float(step.state.memory[f"{NAME}.norm.{name}"])
        if sigma:
            with torch.no_grad():
                matrix_IO.mul_(norm / sigma)
