"""Activation functions by the names that `hidden_act` of a checkpoint's config.json gives them.

Those that checkpoints of the BERT family name are here; the rarer ones are looked up in
`transformers`, which takes seconds to import.
Source: Hendrycks and Gimpel 2016, arxiv.org/abs/1606.08415: GELU and its approximations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

Activation = Callable[[torch.Tensor], torch.Tensor]


def gelu_new(hidden: torch.Tensor) -> torch.Tensor:
    """GELU by a tanh, as the first BERT had it; any shape."""
    # `half` comes first: in another order the gradients have other last bits.
    half = 0.5 * hidden
    inner = math.sqrt(2.0 / math.pi) * (hidden + 0.044715 * torch.pow(hidden, 3.0))
    return half * (1.0 + torch.tanh(inner))


def quick_gelu(hidden: torch.Tensor) -> torch.Tensor:
    """GELU by a sigmoid; any shape."""
    return hidden * torch.sigmoid(1.702 * hidden)


_BY_NAME: dict[str, Activation] = {
    "gelu": nn.functional.gelu,
    "gelu_new": gelu_new,
    "gelu_pytorch_tanh": partial(nn.functional.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "relu": nn.functional.relu,
    "silu": nn.functional.silu,
    "swish": nn.functional.silu,
    "mish": nn.functional.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def activation(name: str) -> Activation:
    """The function of a name; a new module where it has parameters. Raises KeyError for a name that
    `transformers` does not know either."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    from transformers.activations import ACT2FN

    found: Activation = ACT2FN[name]
    return found
