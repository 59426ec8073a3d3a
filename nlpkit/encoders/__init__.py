"""The backbone: one interface over the encoders that ship and any BERT-family checkpoint.

An encoder is a module with `hidden_size`, `depth` (layers), `max_length` (tokens, or None),
`learns_as` (one of `nlpkit.optim.WAYS`, for the choice of optimizer and rate), `forward(tokens,
attention) -> hidden_BTH`, `depth_of(parameter name)` for rates by layer, and `spec()`, the plain
values that `build` makes the same architecture from. A run keeps `tokenizer.json` and `spec` of it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tokenizers
from torch import nn

from nlpkit.config import Length, Range, Rate, Size
from nlpkit.errors import SettingsError
from nlpkit.text.tokenizer import Tokenizer

TINY = Path(__file__).parent / "tiny"
TOKENIZER = TINY / "tokenizer.json"
RECORD = "pretraining.json"
"""What `pretrain` says of a checkpoint that it made."""
BUILT_IN = {
    "dgcnn": "gated dilated convolutions over characters and jieba words; learns from a few thousand lines",
    "tiny": "RoFormer (BERT with rotary positions), 4 layers of 256, characters; pretrained",
}


@dataclass(frozen=True)
class TransformerConfig:
    """Settings of a transformer, section `encoder`."""

    dropout: Rate | None = None
    """Of hidden states and attention; none takes the checkpoint's."""
    random: bool = False
    """Random weights in the checkpoint's shape, to see what its training is worth."""
    pickle: bool = False
    """Read a `pytorch_model.bin` (with torch's restricted unpickler) where there is no safetensors
    file."""


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


def settings_of(name: str) -> type:
    """The class of the settings of an encoder."""
    if name == "dgcnn":
        from nlpkit.encoders.dgcnn import DgcnnConfig

        return DgcnnConfig
    return TransformerConfig


def load(name: str, config: Any, head: bool = False) -> tuple[Any, Tokenizer]:
    """An encoder that ships, or a checkpoint by its directory or hub id, with its tokenizer.

    With `head`, also with its masked-LM head. Raises SettingsError, also where there is no head to
    load.
    """
    if name == "dgcnn":
        if head:
            raise SettingsError(
                "dgcnn has no masked-LM head, which this task needs", hint="--encoder tiny"
            )
        backend = tokenizers.Tokenizer.from_file(str(TOKENIZER))
        encoder = build(
            {"kind": "dgcnn", "vocabulary": backend.get_vocab_size(), "config": vars(config)}
        )
        return encoder, tokenizer_of(encoder, backend)
    from nlpkit.encoders.checkpoint import load as checkpoint

    source = TINY if name == "tiny" else name
    backend = checkpoint.load_tokenizer(source)
    encoder = checkpoint.load_encoder(source, pickle=config.pickle, head=head)
    if config.random:
        encoder = build(encoder.spec())
    trained = "pretrained" if (Path(source) / RECORD).exists() else "elsewhere"
    encoder.learns_as = "random" if config.random else trained
    if config.dropout is not None:
        set_dropout(encoder, config.dropout)
    return encoder, tokenizer_of(encoder, backend)


def is_encoder(source: Path) -> bool:
    """Whether this names an encoder that ships, or a directory with a checkpoint of
    `transformers`."""
    if str(source) in BUILT_IN and not source.exists():
        return True
    try:
        return "model_type" in json.loads((source / "config.json").read_bytes())
    except (OSError, ValueError):
        return False


def for_pretraining(start: str | None, shape: ShapeConfig) -> tuple[Any, tokenizers.Tokenizer]:
    """The encoder `start`, or one of `shape` with random weights, with its head and without
    dropout."""
    if start is None:
        backend = tokenizers.Tokenizer.from_file(str(TOKENIZER))
        config = {
            "model_type": shape.family,
            "vocab_size": backend.get_vocab_size(),
            "embedding_size": shape.hidden_size,
            "num_hidden_layers": shape.layers,
            "hidden_size": shape.hidden_size,
            "num_attention_heads": shape.heads,
            "intermediate_size": shape.intermediate_size,
            "max_position_embeddings": shape.max_length,
            "hidden_dropout_prob": shape.dropout,
            "attention_probs_dropout_prob": shape.dropout,
        }
        encoder = build({"kind": "transformer", "config": config, "head": True})
    else:
        encoder, tokenizer = load(start, TransformerConfig(), head=True)
        backend = tokenizer.backend
    set_dropout(encoder, 0.0)
    return encoder, backend


def record_of(name: str) -> dict[str, Any] | None:
    """The record of a pretraining by nlpkit; None for an encoder that has none."""
    path = (TINY if name == "tiny" else Path(name)) / RECORD
    return json.loads(path.read_bytes()) if path.exists() else None


def stages_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of the pretrainings that led to this one, each from the weights of that before
    it, and this one."""
    before = record.get("before")
    return [*(stages_of(before) if before else []), record]


def tokens_of(record: dict[str, Any]) -> int:
    """Tokens read in all stages."""
    return sum(stage["tokens"] for stage in stages_of(record))


def shipped() -> dict[str, Any]:
    """What comes with the package: a sentence on each, and the record of its pretraining where it
    has one."""
    record = record_of("tiny")
    assert record is not None
    stages = [
        {
            "tokens": stage["tokens"],
            "weights": {text["file"]: text["weight"] for text in stage["texts"]},
        }
        for stage in stages_of(record)
    ]
    made = {
        "what": BUILT_IN["tiny"],
        "texts": {text["file"]: f"{text['tokens']} tokens" for text in record["texts"]},
        "stages": stages,
        "tokens": tokens_of(record),
        "steps": sum(
            stage["tokens"] // stage["pretrain"]["batch_tokens"] for stage in stages_of(record)
        ),
        "held_out": {
            key: value for key, value in record["reached"].items() if key not in ("step", "tokens")
        },
        "licence": "that of nlpkit (MIT)",
        "bytes": (TINY / "model.safetensors").stat().st_size,
    }
    return {"dgcnn": BUILT_IN["dgcnn"], "tiny": made}


def describe(name: str) -> dict[str, Any]:
    """What `nlpkit encoder info` says of an encoder that ships."""
    encoder, tokenizer = load(name, settings_of(name)())
    vocabulary = tokenizer.backend.get_vocab_size()
    sizes = {
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "vocabulary_size": vocabulary,
    }
    made = shipped()[name]
    return {
        "source": name,
        **(made if isinstance(made, dict) else {"what": made}),
        **sizes,
        "spec": encoder.spec(),
    }


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of an encoder without the encoder, for checking and scoring: no words, no
    longest input."""
    if name in BUILT_IN:
        return Tokenizer(tokenizers.Tokenizer.from_file(str(TOKENIZER)))
    from nlpkit.encoders.checkpoint import load as checkpoint

    return Tokenizer(checkpoint.load_tokenizer(name))


def build(spec: dict[str, Any]) -> Any:
    """The encoder of a `spec()`, with random weights."""
    values = {key: value for key, value in spec.items() if key != "kind"}
    if spec.get("kind") == "transformer":
        from nlpkit.encoders.transformer import TransformerEncoder

        return TransformerEncoder(**values)
    if spec.get("kind") == "dgcnn":
        from nlpkit.encoders.dgcnn import Dgcnn

        return Dgcnn(**values)
    raise SettingsError(f"unknown kind of encoder {spec.get('kind')!r}")


def tokenizer_of(encoder: Any, backend: tokenizers.Tokenizer) -> Tokenizer:
    """The tokenizer with what the encoder asks for: its longest input, and words if it looks at
    them."""
    return Tokenizer(backend, words=getattr(encoder, "words", None), max_length=encoder.max_length)


def set_dropout(encoder: nn.Module, rate: float) -> None:
    """Sets every dropout of the encoder. Raises SettingsError for a rate outside [0, 1)."""
    if not 0 <= rate < 1 or math.isnan(rate):
        raise SettingsError(f"encoder.dropout: expected a rate in [0, 1), got {rate}")
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
