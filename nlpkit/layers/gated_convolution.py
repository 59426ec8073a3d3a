r"""A gated dilated convolution of width 3 over the tokens of a text, with its gradient by hand.

    [g; h] = W [x(t - d); x(t); x(t + d)] + b,      y = x + sigmoid(g) * (h - x)

Source: https://kexue.fm/archives/5409, /6671.
Legend: B batch, T tokens, H hidden.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from nlpkit.layers.second_gradient import again
from nlpkit.layers.shared_dropout import dropout_mask


class GatedConvolution(nn.Module):
    """One gated dilated convolution of width 3 (see the module docstring); padding stays zero."""

    def __init__(self, size: int, dilation: int, dropout: float):
        super().__init__()
        self.dilation, self.dropout = dilation, dropout
        self.weight = nn.Parameter(torch.randn(2 * size, 3 * size) * (3 * size) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(2 * size))

    def forward(self, hidden_BTH: torch.Tensor, mask_BT1: torch.Tensor) -> torch.Tensor:
        """(B, T, H) -> (B, T, H), zeros where the mask is 0."""
        keep_B1H = dropout_mask(hidden_BTH, self.dropout, self.training)
        parts = (hidden_BTH, self.weight, self.bias, mask_BT1, keep_B1H, self.dilation)
        if torch.is_grad_enabled():
            return _GatedConvolution.apply(*parts)
        return _gated_convolution(*parts)[0]  # no graph of autograd, so that it can be traced


def _gated_convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor,
    keep: torch.Tensor | None,
    dilation: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(y, seen, both, weight as it was used) of the module docstring's formula.

    `x`, `y` are (B, T, H), `weight` (2H, 3H), `mask` (B, T, 1), `keep` (B, 1, H), the dropout of
    the new state h. `seen` is [x(t - d); x(t); x(t + d)], (B, T, 3H); `both` is
    [sigmoid(g); keep * h], (B, T, 2H).
    """
    batch, length, size = x.shape
    weight = weight.to(x.dtype)
    seen = x.new_zeros(batch, length, 3 * size)
    seen[..., size : 2 * size] = x
    # Both slices are empty where the distance is longer than the text.
    seen[:, dilation:, :size] = x[:, :-dilation]
    seen[:, :-dilation, 2 * size :] = x[:, dilation:]
    both = torch.addmm(bias.to(x.dtype), seen.view(-1, 3 * size), weight.t())
    both = both.view(batch, length, 2 * size)
    # In place on the two halves: no copy of either is made.
    gate, new = both[..., :size].sigmoid_(), both[..., size:]
    if keep is not None:
        new.mul_(keep)
    return torch.lerp(x, new, gate).mul_(mask), seen, both, weight


def _formula(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor,
    keep: torch.Tensor | None,
    dilation: int,
) -> torch.Tensor:
    """y of `_gated_convolution`, with nothing written in place."""
    length = x.shape[1]
    left = nn.functional.pad(x, (0, 0, dilation, 0))[:, :length]
    right = nn.functional.pad(x, (0, 0, 0, dilation))[:, dilation:]
    seen = torch.cat([left, x, right], -1)
    both = nn.functional.linear(seen, weight.to(x.dtype), bias.to(x.dtype))
    gate, new = both.chunk(2, -1)
    if keep is not None:
        new = new * keep
    return torch.lerp(x, new, gate.sigmoid()) * mask


class _GatedConvolution(torch.autograd.Function):
    """The layer as one matrix product over the three shifted states, with its gradient by hand.

    autograd's own elementwise passes and copies take several times as long as the products on a
    CPU. With s = sigmoid(g), n = keep * h, y = x + s * (n - x), and dy the gradient of the loss by
    y (0 where the mask is 0):

        dn = s * dy,   dh = keep * dn,   dg = (n - x) * dy * s * (1 - s),
        d[seen] = [dg; dh] W,   dx = (1 - s) * dy + what d[seen] has for x at its three places

    A gradient that is to be differentiated again is autograd's own.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Any, weight: Any, bias: Any, mask: Any, keep: Any, dilation: int
    ) -> torch.Tensor:
        y, seen, both, used = _gated_convolution(x, weight, bias, mask, keep, dilation)
        ctx.save_for_backward(x, weight, bias, seen, used, both, mask, keep)
        ctx.dilation = dilation
        return y

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        *inputs, seen, weight, both, mask, keep = ctx.saved_tensors
        batch, length, double = both.shape
        dilation, size = ctx.dilation, double // 2
        if torch.is_grad_enabled():
            formula = partial(_formula, mask=mask, keep=keep, dilation=dilation)
            return *again(formula, inputs, grad), None, None, None
        gate, new, x = both[..., :size], both[..., size:], seen[..., size : 2 * size]
        grad = grad * mask
        # [dg; dh] is filled half by half, so that it is one matrix without a copy.
        grad_both = torch.empty_like(both)
        grad_gate, grad_new = grad_both[..., :size], grad_both[..., size:]
        torch.mul(grad, gate, out=grad_new)  # dn
        grad_x = grad - grad_new  # (1 - s) * dy
        # (n - x) * (1 - s) * dy * s: the sigmoid's own slope is in the last two factors
        torch.sub(new, x, out=grad_gate).mul_(grad_x).mul_(gate)
        if keep is not None:
            grad_new.mul_(keep)  # dh
        flat = grad_both.view(-1, double)
        grad_weight, grad_bias = flat.t() @ seen.view(-1, 3 * size), flat.sum(0)
        grad_seen = (flat @ weight).view(batch, length, 3 * size)
        # What x(t) gave to its neighbours comes back from them, shifted the other way.
        grad_x += grad_seen[..., size : 2 * size]
        if dilation < length:
            grad_x[:, :-dilation] += grad_seen[:, dilation:, :size]
            grad_x[:, dilation:] += grad_seen[:, :-dilation, 2 * size :]
        return grad_x, grad_weight, grad_bias, None, None, None
