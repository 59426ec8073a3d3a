"""Some of the tokens of a batch side by side, without those that do not count.

Legend: B batch, Q tokens of each row, N those that count, A heads, D size of a head; X stands for
any number of dimensions.
"""

from __future__ import annotations

import torch


class Packing:
    """Which of B x Q new tokens count: these N are computed alone, one row of N tokens, wherever a
    token does not look at others. `counts_BQ` is bool; a token that does not count has keys and
    values of 0, which no token that counts may see."""

    def __init__(self, counts_BQ: torch.Tensor):
        self.shape = counts_BQ.shape
        self.place_N = counts_BQ.flatten().nonzero()[:, 0]

    def pack(self, values_BQX: torch.Tensor) -> torch.Tensor:
        """Those that count: (B, Q, ...) to (1, N, ...)."""
        return values_BQX.flatten(0, 1)[self.place_N][None]

    def spread(self, values_1NX: torch.Tensor) -> torch.Tensor:
        """Each at its place, 0 elsewhere: (1, N, ...) to (B, Q, ...)."""
        size = self.shape.numel()
        spread_MX = values_1NX.new_zeros((size, *values_1NX.shape[2:]))
        spread_MX[self.place_N] = values_1NX[0]
        return spread_MX.unflatten(0, self.shape)

    def spread_heads(self, values_1AND: torch.Tensor) -> torch.Tensor:
        """As `spread`, of numbers for each head: (1, A, N, D) to (B, A, Q, D)."""
        return self.spread(values_1AND.transpose(1, 2)).transpose(1, 2)
