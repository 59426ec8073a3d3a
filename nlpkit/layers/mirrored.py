"""Texts turned around in their places, for what reads them backwards.

Legend: B batch, T tokens.
"""

from __future__ import annotations

import torch


def mirrored(mask_BT1: torch.Tensor) -> torch.Tensor:
    """Indices (B, T, 1) that turn every text around in its place; padding stays where it is.

    The mask is 1 at tokens, which come first, and 0 at padding.
    """
    length_B11 = mask_BT1.bool().sum(1, keepdim=True)
    position_BT1 = torch.arange(mask_BT1.shape[1], device=mask_BT1.device)[None, :, None].expand(
        mask_BT1.shape
    )
    return torch.where(position_BT1 < length_B11, length_B11 - 1 - position_BT1, position_BT1)
