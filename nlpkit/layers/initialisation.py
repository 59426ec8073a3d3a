r"""First values of the matrices of linear layers, by name, so that what comes out of a layer is
neither much larger nor much smaller than what went in.

    normal       N(0, s^2)
    truncated    N(0, s^2), and nothing farther than two deviations away
    lecun        the same of s^2 = 1 / m: E[y^2] = E[x^2] for y = W x of m independent x
    ntk          W ~ N(0, 1) and y = W x / sqrt(m) + b: the first y are as with `lecun`, but a step
                 of a given size moves y sqrt(m) times less. Rates are larger: 0.01 for Adam

What is left of a normal distribution of deviation s between -2 s and 2 s has variance CUT s^2. The
s that is drawn with is larger by 1 / sqrt(CUT), so that the deviation is as told.

Source: https://kexue.fm/archives/8620; LeCun et al. 1998, Efficient BackProp, section 4.6; Jacot et
al. 2018, arxiv.org/abs/1806.07572, section 2.1.
Legend: N rows, all leading dimensions together; M inputs; O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from nlpkit.layers.steady_products import steady_linear

CUT = 1 - 4 * math.exp(-2) / (math.sqrt(2 * math.pi) * math.erf(math.sqrt(2)))
"""0.7737: the variance of N(0, 1) without what lies beyond -2 and 2."""


def normal(weight: torch.Tensor, deviation: float) -> None:
    """Draws a tensor of any shape in place."""
    nn.init.normal_(weight, std=deviation)


def truncated(weight: torch.Tensor, deviation: float) -> None:
    """Draws a tensor of any shape in place; `deviation` is that of what is drawn."""
    wide = deviation / math.sqrt(CUT)
    nn.init.trunc_normal_(weight, std=wide, a=-2 * wide, b=2 * wide)


def lecun(weight_OM: torch.Tensor, deviation: float) -> None:
    """Draws a matrix in place; its deviation follows from its inputs."""
    truncated(weight_OM, weight_OM.shape[1] ** -0.5)


def ntk(weight_OM: torch.Tensor, deviation: float) -> None:
    """Draws a matrix of an `NtkLinear` in place."""
    nn.init.normal_(weight_OM)


MATRICES: dict[str, Callable[[torch.Tensor, float], None]] = {
    "normal": normal,
    "truncated": truncated,
    "lecun": lecun,
    "ntk": ntk,
}
"""Name -> what draws a matrix of a linear layer in place; the deviation counts where the name does
not set another."""
TABLES = {"truncated": truncated, "lecun": truncated}
"""The same for tables of vectors, where they are not drawn as by `normal`."""


class NtkLinear(nn.Linear):
    """y = W x / sqrt(m) + b. In evaluation mode its rows do not depend on how many they are."""

    def forward(self, input_NM: torch.Tensor) -> torch.Tensor:
        """As `nn.Linear`: (..., M) to (..., O)."""
        scaled_NM = input_NM * self.in_features**-0.5
        if self.training:
            return nn.functional.linear(scaled_NM, self.weight, self.bias)
        return steady_linear(scaled_NM, self.weight, self.bias)
