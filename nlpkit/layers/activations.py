r"""Activation functions by the names that `hidden_act` of a checkpoint's config.json gives them.

Those that checkpoints of the BERT family name are here; the rarer ones are looked up in
`transformers`, which takes seconds to import. A corner is made smooth by convolving it with a
density that comes close to Dirac's as its sharpness t grows:

    softplus       max(x, 0) with the derivative of sigmoid(t x):  log(1 + exp(t x)) / t
    smooth_relu    max(x, 0) with a Gaussian of deviation 1 / t:   (x + a(x)) / 2
                   a(x) = x erf(t x / sqrt(2)) + sqrt(2 / pi) exp(-(t x)^2 / 2) / t, which is |x|
    sau            max(x, c x) with the same Gaussian:             ((1 + c) x + (1 - c) a(x)) / 2

`transformers` has none of the three. They are written with their sharpness, `sau(4)`, or without,
which is 1.
Source: Hendrycks and Gimpel 2016, arxiv.org/abs/1606.08415: GELU and its approximations;
https://kexue.fm/archives/8718: densities close to Dirac's; Biswas et al. 2021,
arxiv.org/abs/2109.13210: SAU. Differs from Biswas et al.: c is not learned.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from nlpkit.errors import did_you_mean

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


SLOPE = 0.1
"""Of `sau` at numbers far below zero: the c of the module docstring."""
SHARPEST = 1000
"""Beyond it the corner is as sharp as float32 tells."""


def softplus(hidden: torch.Tensor, sharpness: float) -> torch.Tensor:
    """ReLU with a corner rounded by a logistic density; any shape."""
    return nn.functional.softplus(hidden, beta=sharpness)


def smooth_relu(hidden: torch.Tensor, sharpness: float) -> torch.Tensor:
    """ReLU with a corner rounded by a Gaussian; any shape."""
    return sau(hidden, sharpness, slope=0.0)


def sau(hidden: torch.Tensor, sharpness: float, slope: float = SLOPE) -> torch.Tensor:
    """Leaky ReLU with a corner rounded by a Gaussian; any shape."""
    scaled = sharpness * hidden
    rounded = math.sqrt(2.0 / math.pi) / sharpness * torch.exp(-0.5 * scaled.square())
    magnitude = hidden * torch.erf(scaled / math.sqrt(2.0)) + rounded
    return 0.5 * ((1.0 + slope) * hidden + (1.0 - slope) * magnitude)


_SMOOTH: dict[str, Callable[..., torch.Tensor]] = {
    "softplus": softplus,
    "smooth_relu": smooth_relu,
    "sau": sau,
}
"""Name -> function of a number and a sharpness."""
_CALL = re.compile(r"(\w+)(?:\((\d+(?:\.\d+)?)\))?")

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
    smooth = _smooth(name)
    if smooth is not None:
        return smooth
    from transformers.activations import ACT2FN

    found: Activation = ACT2FN[name]
    return found


def is_smooth(name: str) -> bool:
    """Whether it is one of those that `transformers` does not have."""
    return _smooth(name) is not None


def check_activation(name: str) -> None:
    """Raises ValueError for a name that is not of this file."""
    if name in _BY_NAME or is_smooth(name):
        return
    names = [*_BY_NAME, *_SMOOTH]
    near = did_you_mean(name.partition("(")[0], names)
    raise ValueError(
        f"activation: expected one of {', '.join(names)}, the last {len(_SMOOTH)} with a sharpness "
        f"above 0 and up to {SHARPEST} or without, as sau(4), got {name}{near}"
    )


def _smooth(name: str) -> Activation | None:
    """The function of a name with a sharpness or without; None where it is none of them."""
    match = _CALL.fullmatch(name)
    if match is None or match[1] not in _SMOOTH:
        return None
    sharpness = float(match[2] or 1)
    if not 0 < sharpness <= SHARPEST:
        return None
    return partial(_SMOOTH[match[1]], sharpness=sharpness)
