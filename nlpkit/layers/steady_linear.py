"""A linear layer whose rows do not depend on how many they are.

The matrix libraries of a CPU take another kernel for a product of one to three rows than for more,
and its sums come out otherwise in the last bits (fp32, MKL: up to 1e-6 of logits of size 1). Then a
text alone in its batch has other scores than among others. So in prediction few rows are filled up
to as many as take the common kernel.

Legend: N rows, all leading dimensions together; H features.
"""

from __future__ import annotations

import math

import torch
from torch import nn

FEW = 4
"""From so many rows on, the rows of a product were equal for all N tried (up to 2048)."""


def steady(model: nn.Module) -> None:
    """Makes every linear layer of a model a `SteadyLinear`. Weights and their names stay."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = SteadyLinear


class SteadyLinear(nn.Linear):
    """`nn.Linear`; in evaluation mode one to three rows are multiplied as four."""

    def forward(self, input_NH: torch.Tensor) -> torch.Tensor:
        """As `nn.Linear`: (..., H) to (..., `out_features`)."""
        if self.training:
            return super().forward(input_NH)
        return steady_linear(input_NH, self.weight, self.bias)


def steady_linear(
    input_NH: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`torch.nn.functional.linear` of at least FEW rows: (..., H) to (..., O).

    The rows added are zero and taken off again. `weight` is (O, H), `bias` (O,).
    """
    shape = input_NH.shape[:-1]
    rows = math.prod(shape)
    if input_NH.device.type != "cpu" or not 0 < rows < FEW:
        return nn.functional.linear(input_NH, weight, bias)
    flat_NH = input_NH.reshape(rows, -1)
    filled_NH = torch.cat([flat_NH, flat_NH.new_zeros(FEW - rows, flat_NH.shape[1])])
    return nn.functional.linear(filled_NH, weight, bias)[:rows].unflatten(0, shape)
