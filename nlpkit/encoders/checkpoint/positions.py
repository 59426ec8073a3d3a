"""More learned positions than a checkpoint has, by hierarchical decomposition.

With n positions p_1 .. p_n and a = 0.4:

    u_i = (p_i - a p_1) / (1 - a)
    q_{(i-1) n + j} = a u_i + (1 - a) u_j          1 <= i, j <= n

The first n of the n^2 positions q are those that were there.
Source: Su Jianlin, https://kexue.fm/archives/7947
"""

from __future__ import annotations

import torch

from nlpkit.errors import SettingsError

SHARE = 0.4
"""The a of the formula."""


def more_positions(position_NH: torch.Tensor, count: int) -> torch.Tensor:
    """The table of `count` positions, of the type of the table given, whose rows come first as they
    are. Raises SettingsError for fewer positions than there are, or more than their square."""
    known = len(position_NH)
    if not known <= count <= known**2:
        raise SettingsError(
            f"positions: expected from {known}, which there are, to {known**2}, got {count}"
        )
    base_NH = (position_NH.double() - SHARE * position_NH[0].double()) / (1 - SHARE)
    number_M = torch.arange(known, count)
    coarse_MH = base_NH[number_M // known]
    fine_MH = base_NH[number_M % known]
    new_MH = SHARE * coarse_MH + (1 - SHARE) * fine_MH
    return torch.cat([position_NH, new_MH.to(position_NH.dtype)])
