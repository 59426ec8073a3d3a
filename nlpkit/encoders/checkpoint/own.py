"""The checkpoint of an encoder that `transformers` does not know, in a directory.

    config.json         its `spec`, and that the format is nlpkit's
    model.safetensors   weights in bfloat16, with the head that its pretraining taught; what does
                        not learn (random features, counts) in its own type
    tokenizer.json

Only nlpkit reads it; a checkpoint of the BERT family is written for all (`checkpoint.load`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import tokenizers
import torch

from nlpkit.encoders.checkpoint.files import check_finite, read_json, tensors
from nlpkit.errors import SettingsError
from nlpkit.jsonl import write_atomic

FORMAT = "nlpkit"


def save_own(folder: Path, encoder: Any, tokenizer: tokenizers.Tokenizer) -> None:
    """Writes the encoder with its tokenizer."""
    spec = encoder.spec()
    config = {
        "format": FORMAT,
        "model_type": spec["kind"],
        "vocab_size": encoder.vocabulary_size,
        "config": spec["config"],
    }
    with write_atomic(folder / "tokenizer.json") as stream:
        stream.write(tokenizer.to_str().encode())
    with write_atomic(folder / "config.json") as stream:
        stream.write(json.dumps(config, indent=1).encode() + b"\n")
    halves = {}
    learned = {name for name, one in encoder.named_parameters() if one.requires_grad}
    for name, tensor in encoder.state_dict().items():
        kind = torch.bfloat16 if name in learned else tensor.dtype
        halves[name] = tensor.detach().to("cpu", kind).contiguous()
    with write_atomic(folder / "model.safetensors") as stream:
        stream.write(safetensors.torch.save(halves, {"format": "pt"}))


def own_spec(folder: Path) -> dict[str, Any] | None:
    """What `encoders.build` makes the encoder of a directory from, with its head; None where the
    directory holds no checkpoint of this format. Raises SettingsError for a config without what
    belongs to it."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    config = read_json(path)
    if config.get("format") != FORMAT:
        return None
    for name, kind in (("model_type", str), ("vocab_size", int), ("config", dict)):
        if not isinstance(config.get(name), kind):
            raise SettingsError(f'{path}: no "{name}"')
    spec = {"kind": config["model_type"], "config": config["config"], "head": True}
    if "vocab_size" in config["config"]:  # of a transformer, whose config is whole
        return spec
    return {**spec, "vocabulary": config["vocab_size"]}


@torch.no_grad()
def fill_own(encoder: Any, folder: Path) -> None:
    """Puts the weights of a directory into an encoder with or without its head.

    Raises SettingsError unless every tensor that is wanted is there, fits, and is finite.
    """
    path = folder / "model.safetensors"
    places = encoder.state_dict()
    found = dict(tensors(path))
    lacking = sorted(places.keys() - found.keys())
    if lacking:
        raise SettingsError(f"{path}: tensors are missing: {', '.join(lacking[:3])}")
    unknown = sorted(name for name in found.keys() - places.keys() if not name.startswith("head."))
    if unknown:
        raise SettingsError(f"{path}: tensors have no place: {', '.join(unknown[:3])}")
    for name, place in places.items():
        tensor = found[name]
        if place.shape != tensor.shape:
            shapes = f"expected {tuple(place.shape)}, got {tuple(tensor.shape)}"
            raise SettingsError(f"{path}: {name}: {shapes}")
        check_finite(path, name, tensor)
        place.copy_(tensor)
