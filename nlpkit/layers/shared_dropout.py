"""Dropout with one mask for all positions of a text.

Legend: B batch, T tokens, H hidden.
"""

from __future__ import annotations

import torch


def dropout_mask(hidden_BTH: torch.Tensor, rate: float, training: bool) -> torch.Tensor | None:
    """A dropout mask (B, 1, H) shared by all positions of a text, None for none: cheap, and no word
    leaks past it."""
    if not (training and rate):
        return None
    draw = torch.rand(hidden_BTH.shape[0], 1, hidden_BTH.shape[2], device=hidden_BTH.device)
    return (draw >= rate).to(hidden_BTH.dtype) / (1 - rate)


def shared_dropout(hidden_BTH: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """Dropout with `dropout_mask`."""
    mask_B1H = dropout_mask(hidden_BTH, rate, training)
    return hidden_BTH if mask_B1H is None else hidden_BTH * mask_B1H
