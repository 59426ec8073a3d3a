"""The encoder that a pretraining starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tokenizers

from nlpkit.config import Length, Range, Rate, Size
from nlpkit.encoders.by_name import build, load, set_dropout, settings_of
from nlpkit.encoders.shipped import TOKENIZER
from nlpkit.errors import SettingsError
from nlpkit.text.backend import read_backend


@dataclass(frozen=True)
class ShapeConfig:
    """The encoder that a pretraining starts with random weights, section `encoder`."""

    family: Literal["roformer", "bert"] = "roformer"
    """RoFormer is BERT with rotary positions, which see at once how far apart two tokens are: it
    learns sooner."""
    layers: Annotated[int, Range(1, 1000)] = 4
    """Blocks."""
    hidden_size: Size = 256
    """Numbers of a hidden vector; a multiple of the heads."""
    heads: Size = 4
    """Of the attention."""
    intermediate_size: Size = 1024
    """Of the feed-forward layers."""
    max_length: Length = 512
    """Tokens that it takes, [CLS] and [SEP] included."""
    dropout: Rate = 0.1
    """That the checkpoint asks for when it is trained on a task; pretraining itself uses none."""
    pickle: bool = False
    """With --start: read its `pytorch_model.bin` (with torch's restricted unpickler) where there is
    no safetensors file."""


def for_pretraining(start: str | None, shape: ShapeConfig) -> tuple[Any, tokenizers.Tokenizer]:
    """(encoder, tokenizer): the encoder `start`, or one of `shape` with random weights where that
    is None; with its masked-LM head and without dropout.

    Raises SettingsError for a `start` that does not load, or that has no head.
    """
    if start is None:
        backend = read_backend(TOKENIZER)
        encoder = _of_shape(shape, backend.get_vocab_size())
    else:
        config_class = settings_of(start)
        if shape.pickle and "pickle" not in config_class.__dataclass_fields__:  # type: ignore[attr-defined]
            raise SettingsError(f"encoder.pickle: {start} is no checkpoint")
        config = config_class(pickle=True) if shape.pickle else config_class()
        encoder, tokenizer = load(start, config, head=True)
        backend = tokenizer.backend
    set_dropout(encoder, 0.0)
    return encoder, backend


def _of_shape(shape: ShapeConfig, vocabulary: int) -> Any:
    config = {
        "model_type": shape.family,
        "vocab_size": vocabulary,
        "embedding_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden_size,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_length,
        "hidden_dropout_prob": shape.dropout,
        "attention_probs_dropout_prob": shape.dropout,
    }
    return build({"kind": "transformer", "config": config, "head": True})
