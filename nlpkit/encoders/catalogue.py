"""What `nlpkit encoder list` and `nlpkit encoder info` say of the encoders that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nlpkit.encoders.by_name import class_of, load, load_own, names, settings_of
from nlpkit.encoders.checkpoint.files import bits_of, read_json
from nlpkit.encoders.checkpoint.own import FORMAT
from nlpkit.encoders.shipped import checkpoints, notice_of, record_of, stages_of, tokens_of
from nlpkit.text.backend import vocabulary_hash

LICENCE = "that of nlpkit (MIT)"


def shipped() -> dict[str, Any]:
    """Name -> what it is: a sentence, or for a checkpoint what it was made from and what it
    reaches."""
    return {name: _checkpoint(name) if name in checkpoints() else _code(name) for name in names()}


def describe(name: str) -> dict[str, Any]:
    """The same of one of them, with its sizes and its architecture. It is built for this."""
    encoder, tokenizer = load(name, settings_of(name)())
    made = _checkpoint(name) if name in checkpoints() else {"what": _code(name)}
    return {
        "source": name,
        **made,
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "vocabulary_size": tokenizer.backend.get_vocab_size(),
        "spec": encoder.spec(),
    }


def describe_own(source: str) -> dict[str, Any]:
    """What a checkpoint in nlpkit's own format is, read from its files: sizes, architecture, and
    what its pretraining reached. Raises SettingsError where it does not load."""
    folder = Path(source)
    encoder, backend = load_own(folder, head=True)
    spec = encoder.spec()
    record = record_of(source) or {}
    return {
        "source": source,
        "architecture": spec["kind"],
        "format": FORMAT,
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "bytes": (folder / "model.safetensors").stat().st_size,
        "vocabulary_size": backend.get_vocab_size(),
        "vocabulary_sha256": vocabulary_hash(backend),
        "spec": spec,
        "tokens": tokens_of(record) if record.get("tokens") else None,
        "held_out": record.get("reached"),
    }


def _code(name: str) -> str:
    encoder_class = class_of(name)
    assert encoder_class is not None  # a name that is no checkpoint's is a file's
    return encoder_class.what


def _checkpoint(name: str) -> dict[str, Any]:
    """What a checkpoint that ships was made from; one that was converted and not pretrained here
    has no record."""
    folder = checkpoints()[name]
    config = read_json(folder / "config.json")
    record = record_of(name)
    layers, size = config["num_hidden_layers"], config["hidden_size"]
    origin = "converted" if record is None else "pretrained"
    return {
        "what": f"{config['model_type']}, {layers} layers of {size}, characters; {origin}",
        **({} if record is None else _history(record)),
        "licence": notice_of(name) or LICENCE,
        "bits": bits_of(folder / "model.safetensors"),
        "bytes": (folder / "model.safetensors").stat().st_size,
    }


def _history(record: dict[str, Any]) -> dict[str, Any]:
    """Texts, stages and figures of a pretraining."""
    steps = 0
    stages = []
    for stage in stages_of(record):
        steps += stage["tokens"] // stage["pretrain"]["batch_tokens"]
        weights = {text["file"]: text["weight"] for text in stage["texts"]}
        stages.append({"tokens": stage["tokens"], "weights": weights})
    reached = record["reached"].items()
    return {
        "texts": {text["file"]: f"{text['tokens']} tokens" for text in record["texts"]},
        "stages": stages,
        "tokens": tokens_of(record),
        "steps": steps,
        "held_out": {key: value for key, value in reached if key not in ("step", "tokens")},
    }
