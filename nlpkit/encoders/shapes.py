"""The encoder that a pretraining starts from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import tokenizers

from nlpkit.config import Length, Range, Rate, Size
from nlpkit.encoders.by_name import build, class_of, load, load_own, set_dropout, settings_of
from nlpkit.encoders.checkpoint.own import own_spec
from nlpkit.encoders.parts import Parts, refuse_parts, with_parts
from nlpkit.encoders.shipped import TOKENIZER, folder_of
from nlpkit.errors import SettingsError
from nlpkit.text.backend import read_backend


@dataclass(frozen=True)
class ShapeConfig(Parts):
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


def for_pretraining(
    start: str | None, shape: Any, name: str | None = None
) -> tuple[Any, tokenizers.Tokenizer]:
    """(encoder, tokenizer): the encoder `start`, or one with random weights where that is None;
    with its head, which is new where the checkpoint has none, and without dropout.

    `shape` is a `ShapeConfig`, or where `name` is given the settings of that encoder, a file of
    this folder. Raises SettingsError for a `start` that does not load, and for a name
    whose encoder is not pretrained.
    """
    if start is not None:
        encoder, backend = _of_start(start, shape)
    else:
        backend = read_backend(TOKENIZER)
        size = backend.get_vocab_size()
        encoder = _of_shape(shape, size) if name is None else _of_name(name, shape, size)
    set_dropout(encoder, 0.0)
    return encoder, backend


def shape_settings(name: str | None) -> type:
    """The class of the settings that shape a new encoder: of a transformer for None. Raises
    SettingsError for a name whose encoder is not pretrained."""
    if name is None:
        return ShapeConfig
    encoder_class = class_of(name)
    if encoder_class is None:
        raise SettingsError(
            f"--encoder: no encoder with random weights has this name: {name}",
            hint="--start goes on from a checkpoint; without either a transformer is made",
        )
    if encoder_class.objective is None:
        raise SettingsError(f"--encoder: {name} is not pretrained", hint="--encoder on_lstm")
    return encoder_class.Config


def shape_of(encoder: Any) -> dict[str, Any]:
    """The plain values that say what an encoder is, with `model_type`."""
    spec = encoder.spec()
    return {"model_type": spec["kind"], **spec["config"]}


def _of_start(start: str, shape: Any) -> tuple[Any, tokenizers.Tokenizer]:
    refuse_parts(shape, hint="without --start an encoder is made of them")
    folder = folder_of(start)
    if own_spec(folder) is not None:
        return load_own(folder, head=True)
    config_class = settings_of(start)
    pickle = isinstance(shape, ShapeConfig) and shape.pickle
    if pickle and "pickle" not in config_class.__dataclass_fields__:  # type: ignore[attr-defined]
        raise SettingsError(f"encoder.pickle: {start} is no checkpoint")
    config = config_class(pickle=True) if pickle else config_class()
    encoder, tokenizer = load(start, config, head=True, new_head=True)
    return encoder, tokenizer.backend


def _of_name(name: str, config: Any, vocabulary: int) -> Any:
    values = {"vocabulary": vocabulary, "config": asdict(config), "head": True}
    return build({"kind": name, **values})


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
    return build({"kind": "transformer", "config": with_parts(config, shape), "head": True})
