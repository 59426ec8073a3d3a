"""The parts of a transformer of which there are several kinds, for encoders with random weights.

Each kind is a small class or function of `nlpkit.layers`, found by its name: `activations`,
`initialisation`, `residuals` (and norms), `performer`, `taylor_softmax`. A config has under `parts`
what is not as in BERT, and nothing where all is. The activation is its `hidden_act`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from nlpkit.config import Count, Positive, Size
from nlpkit.errors import SettingsError
from nlpkit.layers.activations import check_activation
from nlpkit.layers.initialisation import NtkLinear
from nlpkit.layers.performer import Performer
from nlpkit.layers.residuals import NORMS, RESIDUALS, PostNorm, Scheduled
from nlpkit.layers.taylor_softmax import taylor_softmax

Weigh = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(score_BAQK, additive mask_B1QK) -> weight_BAQK."""


@dataclass(frozen=True)
class Parts:
    """Parts of a transformer with random weights, section `encoder`; none takes the checkpoint's,
    and in a new encoder BERT's."""

    activation: str | None = None
    """Of the feed-forward layers: gelu (BERT's), its forms gelu_new and gelu_pytorch_tanh (by a
    tanh) and quick_gelu (by a sigmoid), relu, silu, mish, tanh, sigmoid; or ReLU with its corner
    rounded, softplus, smooth_relu, and leaky ReLU so, sau: with a sharpness or without, sau(4)."""
    initialisation: Literal["normal", "truncated", "lecun", "ntk"] | None = None
    """First values of matrices: normal of deviation 0.02 (BERT's), the same cut at two deviations,
    lecun: as that, with deviation 1 / sqrt(inputs); or ntk: normal of deviation 1 in layers that
    divide by sqrt(inputs), for larger learning rates."""
    residual: Literal["post", "pre", "rezero", "scheduled"] | None = None
    """How what a layer says is added to what went in: the norm behind the sum (BERT's) or before
    the layer, or no norm and a weight from 0 on, which learns, or grows to 1 in `warm_up` steps."""
    warm_up: Positive | None = None
    """Steps of training until the weight of residual=scheduled is 1; none is 1,000."""
    norm: Literal["layer", "rms"] | None = None
    """Layer norm (BERT's), or by the root of the mean square alone."""
    attention: Literal["softmax", "performer", "taylor"] | None = None
    """Softmax (BERT's); its estimate by random features in time that grows with the length, not its
    square, which suits texts of thousands of tokens; or with a polynomial for the exponential."""
    features: Size | None = None
    """Random features of attention=performer; none is 256. More are more exact."""
    redraw: Count | None = None
    """Steps of training after which attention=performer draws new features; 0 or none is never."""
    order: Literal[2, 4, 6, 8, 10] | None = None
    """Of the polynomial of attention=taylor; none is 2."""

    def __post_init__(self) -> None:
        if self.activation is not None:
            check_activation(self.activation)

    def named(self) -> dict[str, Any]:
        """What is not none."""
        values = {name: getattr(self, name) for name in Parts.__dataclass_fields__}
        return {name: value for name, value in values.items() if value is not None}

    def problem(self) -> str | None:
        """What does not fit together, in words; None where all does."""
        for name, (of, kind) in _ONLY_OF.items():
            if getattr(self, name) is not None and getattr(self, of) != kind:
                return f"{name}: expected none without {of}={kind}, got {getattr(self, name)}"
        return None

    @property
    def are_standard(self) -> bool:
        """Whether an encoder of them is one of `transformers`, whatever its first values were."""
        return self.initialisation != "ntk" and not self.named().keys() - {"initialisation"}


STANDARD = {
    "initialisation": "normal",
    "residual": "post",
    "norm": "layer",
    "attention": "softmax",
}
"""BERT's parts: a config does not name them."""
_ONLY_OF = {
    "warm_up": ("residual", "scheduled"),
    "features": ("attention", "performer"),
    "redraw": ("attention", "performer"),
    "order": ("attention", "taylor"),
}
"""Setting -> the part that has it."""


def with_parts(config: dict[str, Any], parts: Parts) -> dict[str, Any]:
    """The config of a transformer with these parts in place of its own; what is none stays."""
    asked = parts.named()
    activation = asked.pop("activation", config.get("hidden_act", "gelu"))
    merged = {**config.get("parts", {}), **asked}
    for name, (of, kind) in _ONLY_OF.items():  # numbers go with what had them
        if of in asked and asked[of] != kind and name not in asked:
            merged.pop(name, None)
    return {**config, "hidden_act": activation, "parts": merged}


def refuse_parts(config: Any, hint: str) -> None:
    """Raises SettingsError where the settings of an encoder with weights of a checkpoint name a
    part."""
    for name in config.named() if isinstance(config, Parts) else ():
        raise SettingsError(
            f"encoder.{name}: expected none, since the weights were trained with parts of their "
            f"own, got {getattr(config, name)}",
            hint,
        )


def standard_left_out(parts: dict[str, Any]) -> dict[str, Any]:
    """Parts without those of BERT, and without what is none."""
    return {
        name: value
        for name, value in parts.items()
        if value is not None and STANDARD.get(name) != value
    }


def new_linear(parts: Parts, inputs: int, outputs: int) -> nn.Linear:
    """A linear layer of a block."""
    kind = NtkLinear if parts.initialisation == "ntk" else nn.Linear
    return kind(inputs, outputs)


def new_norm(parts: Parts, size: int, epsilon: float) -> nn.Module:
    """The norm of vectors."""
    return NORMS[parts.norm or "layer"](size, eps=epsilon)


def new_residual(parts: Parts, inputs: int, size: int, epsilon: float, dropout: float) -> PostNorm:
    """The end of a branch: its last layer, from `inputs` numbers, and the sum."""
    kind: Any = residual_kind(parts)
    if kind is Scheduled:
        kind = partial(Scheduled, warm_up=parts.warm_up or 1000)
    dense = new_linear(parts, inputs, size)
    found: PostNorm = kind(dense, partial(new_norm, parts, size, epsilon), dropout)
    return found


def residual_kind(parts: Parts) -> type[PostNorm]:
    """The class of what `new_residual` makes."""
    return RESIDUALS[parts.residual or "post"]


def new_performer(parts: Parts, head_size: int) -> Performer | None:
    """What reads in the place of attention; None where nothing does."""
    if parts.attention != "performer":
        return None
    return Performer(head_size, parts.features or 256, parts.redraw or 0)


def weigh_of(parts: Parts) -> Weigh | None:
    """What makes weights of scores; None for a softmax."""
    if parts.attention != "taylor":
        return None
    return partial(_taylor_weights, order=parts.order or 2)


def _taylor_weights(score_BAQK: torch.Tensor, mask_B1QK: torch.Tensor, order: int) -> torch.Tensor:
    """The weights of `taylor_softmax`, computed in float32 at least."""
    wide = torch.promote_types(score_BAQK.dtype, torch.float32)
    weight_BAQK = taylor_softmax(score_BAQK.to(wide), order, mask_B1QK < 0)
    return weight_BAQK.to(score_BAQK.dtype)
