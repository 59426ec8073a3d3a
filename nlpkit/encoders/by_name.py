"""An encoder by its name: a file here, a checkpoint that ships, or any checkpoint by its directory
or hub id.

Nothing is registered: the encoder `<name>` is the class `Encoder` of `encoders/<name>.py` (see
`encoders.base`). A run keeps `tokenizer.json` and the encoder's `spec`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import pkgutil
import sys
from pathlib import Path
from typing import Any

import tokenizers
from torch import nn

from nlpkit.encoders.checkpoint.own import fill_own, own_spec
from nlpkit.encoders.checkpoint.tokenizer import read_tokenizer
from nlpkit.encoders.parts import refuse_parts, with_parts
from nlpkit.encoders.shipped import RECORD, TOKENIZER, checkpoints, folder_of
from nlpkit.errors import SettingsError, did_you_mean
from nlpkit.text.backend import read_backend
from nlpkit.text.tokenizer import Tokenizer

PACKAGE = "nlpkit.encoders"


def names() -> list[str]:
    """The encoders that come with the package, sorted: files that can be named, and checkpoints."""
    files = [module.name for module in pkgutil.iter_modules(sys.modules[PACKAGE].__path__)]
    own = [name for name in files if class_of(name) is not None]
    return sorted([*own, *checkpoints()])


def class_of(name: str) -> Any | None:
    """The class of the encoder whose weights start at random, by the name of its file; None where
    there is no such file."""
    found = _class_in(name)
    return None if found is None or found.Config is None else found


def settings_of(name: str) -> type:
    """The class of the settings of an encoder."""
    encoder_class = class_of(name)
    if encoder_class is not None:
        return encoder_class.Config
    from nlpkit.encoders.checkpoint.load import CheckpointConfig

    return CheckpointConfig


def load(
    name: str, config: Any, head: bool = False, new_head: bool = False
) -> tuple[Any, Tokenizer]:
    """The encoder of a name and its tokenizer; `config` is an instance of `settings_of(name)`.

    With `head`, also with its masked-LM head; with `new_head` a checkpoint without one gets one
    with random weights. Raises SettingsError, also where there is no head to load.
    """
    encoder_class = class_of(name)
    if encoder_class is not None:
        if head:
            raise SettingsError(
                f"{name} has no masked-LM head, which this task needs", hint="--encoder tiny"
            )
        backend = read_backend(TOKENIZER)
        encoder = encoder_class(vocabulary=backend.get_vocab_size(), config=vars(config))
        return encoder, tokenizer_of(encoder, backend)
    source = folder_of(name)
    spec = own_spec(source)
    if spec is not None:
        if head and getattr(_class_in(spec["kind"]), "objective", None) != "masked":
            raise SettingsError(
                f"{name} has no masked-LM head, which this task needs", hint="--encoder tiny"
            )
        encoder, backend = load_own(source, head=head)
    else:
        from nlpkit.encoders.checkpoint import load as checkpoint

        backend = checkpoint.load_tokenizer(source)
        encoder = checkpoint.load_encoder(
            source, pickle=config.pickle, head=head, new_head=new_head
        )
    if config.random:
        encoder = _random(encoder.spec(), config)
    else:
        refuse_parts(config, hint="--set encoder.random=true")
    if head:
        encoder.head.silence(backend)
    trained = "pretrained" if (source / RECORD).exists() else "elsewhere"
    encoder.learns_as = "random" if config.random else trained
    if config.dropout is not None:
        set_dropout(encoder, config.dropout)
    return encoder, tokenizer_of(encoder, backend)


def load_own(folder: Path, head: bool) -> tuple[Any, tokenizers.Tokenizer]:
    """(encoder, tokenizer) of a directory in nlpkit's own format, with its head if asked for.
    Raises SettingsError where they do not fit together."""
    spec = own_spec(folder)
    if spec is None:
        raise SettingsError(f"{folder}: no checkpoint of nlpkit's own format")
    rows = spec["vocabulary"] if "vocabulary" in spec else spec["config"]["vocab_size"]
    backend = read_tokenizer(folder, rows)
    try:
        encoder = build({**spec, "head": head})
    except SettingsError as error:
        raise SettingsError(f"{folder}/config.json: {error.message}") from None
    fill_own(encoder, folder)
    return encoder, backend


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of an encoder without the encoder, for checking and scoring: no words, no
    longest input."""
    if class_of(name) is not None:
        return Tokenizer(read_backend(TOKENIZER))
    from nlpkit.encoders.checkpoint import load as checkpoint

    return Tokenizer(checkpoint.load_tokenizer(folder_of(name)))


def build(spec: dict[str, Any]) -> Any:
    """The encoder of a `spec()`, with random weights. Raises SettingsError for a spec that makes
    none."""
    kind = str(spec.get("kind"))
    encoder_class = _class_in(kind)
    if encoder_class is None:
        raise SettingsError(f'unknown kind of encoder "{kind}"{did_you_mean(kind, names())}')
    values = {key: value for key, value in spec.items() if key != "kind"}
    try:
        return encoder_class(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"the values make no encoder of the kind {kind}: {error}") from None


def _random(spec: dict[str, Any], config: Any) -> Any:
    """The encoder of a spec with random weights and the parts of its settings."""
    if spec["kind"] != "transformer":
        refuse_parts(config, hint="--encoder tiny --set encoder.random=true")
        return build(spec)
    return build({**spec, "config": with_parts(spec["config"], config)})


def is_encoder(source: Path) -> bool:
    """Whether this names an encoder that ships, or a directory with a checkpoint of
    `transformers`."""
    name = str(source)
    is_shipped = name in checkpoints() or class_of(name) is not None
    if is_shipped and not source.exists():
        return True
    try:
        return "model_type" in json.loads((source / "config.json").read_bytes())
    except (OSError, TypeError, ValueError):
        return False


def tokenizer_of(encoder: Any, backend: tokenizers.Tokenizer) -> Tokenizer:
    """The tokenizer with what the encoder asks for: its longest input, and words if it looks at
    them."""
    return Tokenizer(backend, words=encoder.words, max_length=encoder.max_length)


def set_dropout(encoder: nn.Module, rate: float) -> None:
    """Sets every dropout of the encoder. Raises SettingsError for a rate outside [0, 1)."""
    if not 0 <= rate < 1 or math.isnan(rate):
        raise SettingsError(f"encoder.dropout: expected a rate in [0, 1), got {rate}")
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate


def _class_in(name: str) -> Any | None:
    """The class `Encoder` of `encoders/<name>.py`; None where there is none that is a module."""
    full_name = f"{PACKAGE}.{name}"
    if not name.isidentifier() or importlib.util.find_spec(full_name) is None:
        return None
    found = getattr(importlib.import_module(full_name), "Encoder", None)
    is_encoder_class = isinstance(found, type) and issubclass(found, nn.Module)
    return found if is_encoder_class else None
