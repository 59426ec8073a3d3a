"""The backbone: one interface over the encoders that ship and any BERT-family checkpoint.

An encoder is a module with `hidden_size`, `depth` (layers), `max_length` (tokens, or None), `learning_rate` (a good
top rate), `forward(tokens, attention) -> hidden_BTH`, `depth_of(parameter name)` for rates by layer, and `spec()`, the
plain values that `build` makes the same architecture from. A run keeps `tokenizer.json` and `spec` of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from torch import nn

from nlpkit.errors import SettingsError
from nlpkit.text.tokenizer import Tokenizer

TOKENIZER = Path(__file__).parent / "tiny" / "tokenizer.json"
TINY = {
    "model_type": "bert",
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 512,
}
BUILT_IN = {
    "dgcnn": "gated dilated convolutions over characters and jieba words; learns from a few thousand lines",
    "tiny": "BERT, 4 layers of 256, characters; randomly initialised",
}


@dataclass(frozen=True)
class TransformerConfig:
    """Settings of a transformer, section `encoder`."""

    dropout: float | None = None
    """Of hidden states and attention; none takes the checkpoint's."""
    pickle: bool = False
    """Read a `pytorch_model.bin` (with torch's restricted unpickler) where there is no safetensors file."""


def settings_of(name: str) -> type:
    """The class of the settings of an encoder."""
    if name == "dgcnn":
        from nlpkit.encoders.dgcnn import DgcnnConfig

        return DgcnnConfig
    return TransformerConfig


def load(name: str, config: Any) -> tuple[Any, Tokenizer]:
    """An encoder that ships, or a checkpoint by its directory or hub id, with its tokenizer. Raises SettingsError."""
    if name not in BUILT_IN:
        from nlpkit.encoders.checkpoint import load_encoder, load_tokenizer

        backend = load_tokenizer(name)
        encoder: Any = load_encoder(name, pickle=config.pickle)
        encoder.learning_rate = 3e-5
        if config.dropout is not None:
            set_dropout(encoder, config.dropout)
        return encoder, tokenizer_of(encoder, backend)
    backend = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    vocabulary = backend.get_vocab_size()
    if name == "tiny":
        dropout = 0.1 if config.dropout is None else config.dropout
        dropouts = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        encoder = build({"kind": "transformer", "config": {**TINY, "vocab_size": vocabulary, **dropouts}})
        encoder.learning_rate = 5e-4
    else:
        encoder = build({"kind": "dgcnn", "vocabulary": vocabulary, "config": vars(config)})
    return encoder, tokenizer_of(encoder, backend)


def describe(name: str) -> dict[str, Any]:
    """What `nlpkit encoder info` says of an encoder that ships."""
    encoder, tokenizer = load(name, settings_of(name)())
    vocabulary = tokenizer.backend.get_vocab_size()
    sizes = {"parameters": sum(p.numel() for p in encoder.parameters()), "vocabulary_size": vocabulary}
    return {"source": name, "what": BUILT_IN[name], **sizes, "spec": encoder.spec()}


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of an encoder without the encoder, for checking and scoring: no words, no longest input."""
    if name in BUILT_IN:
        return Tokenizer(tokenizers.Tokenizer.from_file(str(TOKENIZER)))
    from nlpkit.encoders import checkpoint

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
    """The tokenizer with what the encoder asks for: its longest input, and words if it looks at them."""
    return Tokenizer(backend, words=getattr(encoder, "words", None), max_length=encoder.max_length)


def set_dropout(encoder: nn.Module, rate: float) -> None:
    """Sets every dropout of the encoder. Raises SettingsError for a rate outside [0, 1)."""
    if not 0 <= rate < 1 or math.isnan(rate):
        raise SettingsError(f"encoder.dropout: expected a rate in [0, 1), got {rate}")
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
