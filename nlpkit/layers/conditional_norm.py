r"""Conditional LayerNorm: a condition moves the gain and the bias of every LayerNorm of an encoder.

    CLN(x, c) = (x - mean) / sqrt(variance + epsilon) * (gain + W_gain c) + (bias + W_bias c)

W_gain and W_bias start at 0 and have no bias of their own, so that the first step is the encoder as
it was, bit for bit: the norm as it was is computed as ever, and what the condition adds is added to
it. Mean and variance are those of float32 at least. Decay of the maps would fight the condition;
they have none (see `nlpkit.optim.groups`).

    conditions = condition_norms(encoder.model, size)
    with conditions.given(condition_BC):
        hidden_BTH = encoder(tokens)

The norms keep their names and their weights, so that a checkpoint, and rates by layer, find them
where they were. Without a condition they are what they were.

Source: https://kexue.fm/archives/7124. Legend: B batch, T tokens, H hidden (of this norm), C
numbers of the condition.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from nlpkit.errors import SettingsError
from nlpkit.layers.steady_products import steady_linear


class Conditions(threading.local):
    """The condition that the norms of an encoder share: set for a block, in its thread alone.

    The norms lie deep in an encoder, which passes them nothing but hidden vectors.
    """

    condition_BC: torch.Tensor | None = None

    @contextlib.contextmanager
    def given(self, condition_BC: torch.Tensor | None) -> Iterator[None]:
        """Within the block the norms see this condition (B, C), a row for every row of the batch;
        None is no condition."""
        before = self.condition_BC
        self.condition_BC = condition_BC
        try:
            yield
        finally:
            self.condition_BC = before

    def __reduce__(self) -> Any:
        """A copy of a model starts without a condition."""
        return Conditions, ()


class ConditionalNorm(nn.Module):
    """A LayerNorm over the last dimension that a condition moves; takes over the norm's own
    weights."""

    def __init__(self, norm: nn.LayerNorm, size: int, conditions: Conditions):
        super().__init__()
        self.weight = norm.weight
        self.bias = norm.bias
        self.eps = norm.eps
        self.gain_HC = nn.Parameter(norm.weight.new_zeros(len(norm.weight), size))
        self.bias_HC = nn.Parameter(norm.weight.new_zeros(len(norm.weight), size))
        self.conditions = conditions

    @property
    def undecayed(self) -> list[nn.Parameter]:
        """The parameters that have no weight decay."""
        return [self.gain_HC, self.bias_HC]

    def forward(self, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """(B, T, H) -> (B, T, H), row b by condition b."""
        plain_BTH = nn.functional.layer_norm(
            hidden_BTH, self.weight.shape, self.weight, self.bias, self.eps
        )
        condition_BC = self.conditions.condition_BC
        if condition_BC is None:
            return plain_BTH
        wide = torch.promote_types(hidden_BTH.dtype, torch.float32)
        normal_BTH = nn.functional.layer_norm(hidden_BTH.to(wide), self.weight.shape, eps=self.eps)
        gain_B1H, bias_B1H = (
            steady_linear(condition_BC, map_HC)[:, None].to(wide)
            for map_HC in (self.gain_HC, self.bias_HC)
        )
        return (plain_BTH + torch.addcmul(bias_B1H, normal_BTH, gain_B1H)).to(plain_BTH.dtype)


def condition_norms(module: nn.Module, size: int) -> Conditions:
    """Puts a `ConditionalNorm` of conditions of `size` numbers in the place of every LayerNorm
    inside `module`. Raises SettingsError where there is none: nothing would see the condition."""
    conditions = Conditions()
    is_seen = False
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LayerNorm):
                setattr(parent, name, ConditionalNorm(child, size, conditions))
                is_seen = True
    if not is_seen:
        raise SettingsError(
            "encoder.norm: expected layer, since a condition moves the LayerNorms of the encoder",
            hint="--set encoder.norm=layer with random weights, or --encoder tiny",
        )
    return conditions
