"""What makes a BERT, ERNIE, ELECTRA or RoFormer: the settings of its config.json, checked.

Names and defaults are those of the config classes of `transformers`, which reads what is written
here. What does not define an encoder (dtype, architectures, generation, labels) is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from nlpkit.config import build
from nlpkit.encoders.parts import Parts, standard_left_out
from nlpkit.errors import SettingsError, did_you_mean
from nlpkit.layers.activations import is_smooth

FAMILIES = {"bert": "Bert", "electra": "Electra", "ernie": "Ernie", "roformer": "RoFormer"}
"""model_type -> how `transformers` starts the names of its classes."""


@dataclass(frozen=True)
class TransformerSettings:
    """The settings of an encoder, those of other families at values that change nothing."""

    model_type: str
    vocab_size: int = 30522
    embedding_size: int | None = None
    """None for the hidden size."""
    type_vocab_size: int = 2
    task_type_vocab_size: int = 3
    use_task_id: bool = False
    pad_token_id: int | None = 0
    max_position_embeddings: int = 512
    rotary_value: bool = False
    hidden_size: int = 768
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    parts: Parts = Parts()
    """Those that are not as in BERT. The activation is not among them."""

    @property
    def are_standard(self) -> bool:
        """Whether `transformers` has such an encoder."""
        return self.parts.are_standard and not is_smooth(self.hidden_act)

    def as_config(self) -> dict[str, Any]:
        """The settings that the family has, with `model_type`, JSON-able; `parts` where there are
        some."""
        config = {}
        for field in fields(self):
            if _has(self.model_type, field.name) and field.name != "parts":
                config[field.name] = getattr(self, field.name)
        parts = self.parts.named()
        return {**config, "parts": parts} if parts else config


_ONLY_OF = {
    "embedding_size": ("electra", "roformer"),
    "task_type_vocab_size": ("ernie",),
    "use_task_id": ("ernie",),
    "rotary_value": ("roformer",),
}
"""Setting -> the families that have it; any other setting is of all."""
_DEFAULTS = {
    "electra": {
        "embedding_size": 128,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_attention_heads": 4,
    },
    "roformer": {"vocab_size": 50000, "max_position_embeddings": 1536},
}
_SIZES = (
    *("vocab_size", "type_vocab_size", "task_type_vocab_size", "max_position_embeddings"),
    *("embedding_size", "hidden_size", "intermediate_size"),
    *("num_hidden_layers", "num_attention_heads"),
)
_RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob")
_NUMBERS = ("layer_norm_eps", "initializer_range")
_FLAGS = ("use_task_id", "rotary_value")


def read_settings(config: dict[str, Any]) -> TransformerSettings:
    """The settings of a config as a dict with `model_type`; keys that the family does not have are
    ignored. Raises SettingsError for an unknown family, and for values that make no encoder."""
    family = config.get("model_type")
    if family not in FAMILIES:
        near = did_you_mean(str(family), FAMILIES)
        expected = f"expected one of {', '.join(FAMILIES)}, got {family}{near}"
        raise SettingsError(f"encoder: unknown model_type: {expected}")
    values: dict[str, Any] = {"model_type": family, **_DEFAULTS.get(family, {})}
    for field in fields(TransformerSettings):
        if field.name in config and _has(family, field.name):
            values[field.name] = config[field.name]
    values["parts"] = _read_parts(values.get("parts", {}))
    settings = TransformerSettings(**values)
    wrong = _complaint(settings)
    if wrong is not None:
        raise SettingsError(f"encoder: the settings make no {family}: {wrong}")
    if settings.embedding_size is None:
        return replace(settings, embedding_size=settings.hidden_size)
    return settings


def _read_parts(values: Any) -> Parts:
    """The parts of a config. Raises SettingsError for what is none."""
    if not isinstance(values, dict):
        raise SettingsError(f"encoder: parts: expected an object, got {values!r:.40}")
    known = values.keys() - {"activation"}
    if len(known) < len(values):
        raise SettingsError("encoder: parts: the activation is hidden_act")
    parts: Parts = build(Parts, standard_left_out(values), "encoder.parts")
    problem = parts.problem()
    if problem is not None:
        raise SettingsError(f"encoder.{problem}")
    return parts


def _has(family: str, name: str) -> bool:
    return name not in _ONLY_OF or family in _ONLY_OF[name]


def _complaint(settings: TransformerSettings) -> str | None:
    """What is wrong, in words; None for nothing."""
    for name, value in vars(settings).items():
        expected = _expected(name, value)
        if expected is not None:
            return f"{name}: expected {expected}, got {value!r:.40}"
    pad = settings.pad_token_id
    rows = settings.vocab_size
    if pad is not None and not (_is_whole(pad) and -rows <= pad < rows):
        return f"pad_token_id: expected one of the {rows} tokens, got {pad!r:.40}"
    heads = settings.num_attention_heads
    size = settings.hidden_size
    if size % heads:
        return f"hidden_size: expected a multiple of the {heads} heads, got {size}"
    if settings.model_type == "roformer" and size // heads % 2:
        return f"hidden_size: expected an even number for each of the {heads} heads, got {size}"
    return None


def _expected(name: str, value: Any) -> str | None:
    """What a value should have been, None where it is that."""
    if name == "embedding_size" and value is None:
        return None
    if name in _SIZES and not (_is_whole(value) and value >= 1):
        return "a whole number of at least 1"
    if name in _RATES and not (_is_number(value) and 0 <= value <= 1):
        return "a number from 0 to 1"
    if name in _NUMBERS and not (_is_number(value) and 0 <= value < math.inf):
        return "a number of at least 0"
    if name in _FLAGS and not isinstance(value, bool):
        return "true or false"
    if name == "hidden_act" and not isinstance(value, str):
        return "a name"
    return None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value)
