"""Rotary positions: a vector is turned, pair of numbers by pair, by angles that grow with its place,
so that the product of two depends on how far apart they are.

Source: Su et al. 2021, arxiv.org/abs/2104.09864, equation 34.
B batch, A attention heads, T tokens, P positions, D size of a head.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

Rotary = tuple[torch.Tensor, torch.Tensor]
"""(sines, cosines) of some positions, (1 or B, 1, T, D), each number twice in a row."""


class RotaryPositions(nn.Embedding):
    """The sines and cosines by which a RoFormer rotates: row p has the D / 2 sines of position p,
    then its cosines. They do not learn."""

    def __init__(self, positions: int, size: int):
        super().__init__(positions, size, _freeze=True)

    def sinusoids(self) -> torch.Tensor:
        """The table as it is computed, (P, D): sin and cos of p / 10000^(2 i / D)."""
        positions, size = self.weight.shape
        wavelength_D = np.array([np.power(10000, 2 * (j // 2) / size) for j in range(size)])
        angle_PD = np.arange(positions)[:, None] / wavelength_D
        sine_PD = np.concatenate([np.sin(angle_PD[:, 0::2]), np.cos(angle_PD[:, 1::2])], 1)
        return torch.from_numpy(sine_PD.astype(np.float32))

    def first(self, length: int) -> Rotary:
        """Of the positions 0 to `length`."""
        return _doubled(self.weight[:length][None, None])

    def at(self, positions_BT: torch.Tensor) -> Rotary:
        """Of any positions."""
        return _doubled(self.weight[positions_BT][:, None])


def _doubled(sinusoid_X1TD: torch.Tensor) -> Rotary:
    """(sin 0, sin 0, sin 1, sin 1, ...) and the same of the cosines."""
    sin, cos = sinusoid_X1TD.chunk(2, dim=-1)
    sin_X1TD = torch.stack([sin, sin], -1).reshape_as(sinusoid_X1TD)
    cos_X1TD = torch.stack([cos, cos], -1).reshape_as(sinusoid_X1TD)
    return sin_X1TD, cos_X1TD


def rotate(vector_BATD: torch.Tensor, rotary: Rotary) -> torch.Tensor:
    """Turns each pair of neighbouring numbers by the angle of its position."""
    sin_X1TD, cos_X1TD = rotary
    crossed = torch.stack([-vector_BATD[..., 1::2], vector_BATD[..., ::2]], -1)
    return vector_BATD * cos_X1TD + crossed.reshape_as(vector_BATD) * sin_X1TD
