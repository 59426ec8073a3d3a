"""Loads a BERT-family checkpoint as it is, or says why not: its encoder, its tokenizer, and a
report on both.

A source is a directory or an id of the Hugging Face hub. `anatomy` decides by the tensors what the
checkpoint is; `weights` reads the files. An encoder that is returned has all of its weights from
the checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import tokenizers
import torch

from nlpkit.config import Rate
from nlpkit.encoders import transformer
from nlpkit.encoders.checkpoint.files import check_finite, headers, read_json, tensors, weight_files
from nlpkit.encoders.checkpoint.inspect import Anatomy, dissect
from nlpkit.encoders.checkpoint.own import FORMAT, save_own
from nlpkit.encoders.checkpoint.tokenizer import read_tokenizer, tokenizer_file
from nlpkit.encoders.language_head import published_head_name
from nlpkit.encoders.parts import Parts
from nlpkit.encoders.transformer_settings import FAMILIES, read_settings
from nlpkit.errors import SettingsError
from nlpkit.jsonl import write_atomic
from nlpkit.text.backend import vocabulary_hash

OUTPUT_LAYER = "cls.predictions.decoder.weight"

_HUB_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
_HUB_FILES += ["added_tokens.json"]
_HUB_SAFETENSORS = ["model*.safetensors", "model.safetensors.index.json"]
_HUB_PICKLES = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]


@dataclass(frozen=True)
class CheckpointConfig(Parts):
    """Settings of a checkpoint, section `encoder`."""

    dropout: Rate | None = None
    """Of hidden states and attention; none takes the checkpoint's."""
    random: bool = False
    """Random weights in the checkpoint's shape, to see what its training is worth."""
    pickle: bool = False
    """Read a `pytorch_model.bin` (with torch's restricted unpickler) where there is no safetensors
    file."""


@dataclass(frozen=True)
class CheckpointReport:
    """What a checkpoint is; JSON-able. It loads where `problems` is empty."""

    source: str
    architecture: str | None
    """Read from the weights: bert, electra, ernie, roformer; or roberta, which does not load; None:
    something else."""
    claimed: dict[str, Any]
    """`model_type` and `architectures` as config.json has them."""
    sizes: dict[str, int]
    """Read from the weights, under the names of config.json; `num_attention_heads` alone is
    config.json's own."""
    disagreements: list[str]
    """Where config.json contradicts the weights, in words."""
    problems: list[str]
    """Why the checkpoint or its tokenizer does not load, in words."""
    limits: list[str]
    """What it cannot do though it loads, in words."""
    missing: list[str]
    unexpected: list[str]
    heads: list[str]
    """Tensors of known heads (masked LM, pooler, classifier), which an encoder leaves out."""
    parameters: int
    """Numbers in the stored tensors of the encoder."""
    dtype: str
    """Of the tensors as they are read."""
    bits: int | None
    """Of a weight in the file where matrices are stored in blocks with scales (`bits`); the fewest.
    None where none is."""
    bytes: int
    """Size of the weight files on disk."""
    tokenizer: str | None
    """Its file and kind; None where there is no usable one."""
    vocabulary_size: int
    vocabulary_sha256: str | None
    """Of the tokens in the order of their ids, each followed by a line feed: that of a clean
    vocab.txt."""


def inspect(source: str | Path, *, pickle: bool = False) -> CheckpointReport:
    """The report on a directory or hub id. Raises SettingsError without config.json or without
    readable weights."""
    folder = source_folder(source, pickle=pickle)
    files, anatomy = open_checkpoint(folder, pickle)
    claimed = read_json(folder / "config.json")
    vocabulary, complaints = _vocabulary(folder, anatomy.sizes.get("vocab_size"))
    return CheckpointReport(
        source=str(source),
        architecture=anatomy.architecture,
        claimed={key: claimed.get(key) for key in ("model_type", "architectures")},
        sizes=anatomy.sizes,
        disagreements=anatomy.disagreements,
        problems=anatomy.problems + complaints,
        limits=_limits(anatomy, vocabulary["vocabulary_size"]),
        missing=anatomy.missing,
        unexpected=anatomy.unexpected,
        heads=anatomy.heads,
        parameters=sum(torch.Size(header.shape).numel() for header in anatomy.body.values()),
        dtype=", ".join(sorted({header.dtype for header in anatomy.body.values()})),
        bits=min((h.bits for h in anatomy.body.values() if h.bits is not None), default=None),
        bytes=sum(path.stat().st_size for path in files),
        **vocabulary,
    )


def load_encoder(
    source: str | Path, *, pickle: bool = False, head: bool = False, new_head: bool = False
) -> transformer.Encoder:
    """The encoder with its weights, in float32, and with its masked-LM head if asked for.

    With `new_head` a checkpoint that has none of a head gets one with random weights, for a
    pretraining to teach. Raises SettingsError unless every tensor that is wanted is there, fits,
    and is finite.
    """
    files, anatomy = open_checkpoint(source_folder(source, pickle=pickle), pickle)
    if anatomy.problems:
        raise SettingsError(
            f"{source}: {anatomy.problems[0]}", hint=f"nlpkit encoder info {source}"
        )
    encoder = transformer.Encoder(anatomy.config, head=head)
    encoder.head_is_new = head and new_head and not anatomy.language_head
    if head and not encoder.head_is_new:
        _check_head(str(source), encoder, anatomy)
    places = _places(encoder, anatomy)
    output_VE = None
    for path in files:
        for name, tensor in tensors(path):
            if name in places:
                place = places[name]
                if place.shape != tensor.shape:
                    shapes = f"expected {tuple(place.shape)}, got {tuple(tensor.shape)}"
                    raise SettingsError(f"{source}: {name}: {shapes}")
                check_finite(path, name, tensor)
                place.copy_(tensor)
            elif head and name == OUTPUT_LAYER:
                output_VE = tensor
    if output_VE is not None:
        embedding_VE = encoder.model.embeddings.word_embeddings.weight
        if not torch.equal(output_VE.to(embedding_VE.dtype), embedding_VE):
            raise SettingsError(
                f"{source}: {OUTPUT_LAYER} is not the embeddings: such a head does not load"
            )
    return encoder


def _check_head(source: str, encoder: transformer.Encoder, anatomy: Anatomy) -> None:
    """Raises SettingsError unless the files have all of the encoder's head."""
    assert encoder.head is not None
    lacking = sorted(encoder.head.state_dict().keys() - anatomy.language_head.values())
    if lacking:
        names = ", ".join(lacking)
        raise SettingsError(f"{source}: has no masked-LM head, which is needed here: no {names}")


def _places(encoder: transformer.Encoder, anatomy: Anatomy) -> dict[str, torch.Tensor]:
    """Name in the files -> the tensor of the encoder that it fills."""
    body = encoder.model.state_dict()
    places = {name: body[own] for name, own in anatomy.own_names.items()}
    if encoder.head is None:
        return places
    head = encoder.head.state_dict()
    return places | {name: head[own] for name, own in anatomy.language_head.items()}


def save_encoder(folder: Path, encoder: Any, tokenizer: tokenizers.Tokenizer) -> None:
    """Writes the encoder, with its head if it has one, in bfloat16: as a checkpoint that
    `transformers` reads too, or in nlpkit's own format where `transformers` has no such model."""
    if not isinstance(encoder, transformer.Encoder) or not encoder.model.settings.are_standard:
        save_own(folder, encoder, tokenizer)
        return
    family = encoder.model.settings.model_type
    body = {f"{family}.{name}": tensor for name, tensor in encoder.model.state_dict().items()}
    head = {} if encoder.head is None else encoder.head.state_dict()
    weights = {**body, **{published_head_name(name): tensor for name, tensor in head.items()}}
    halves = {name: tensor.detach().to("cpu", torch.bfloat16) for name, tensor in weights.items()}
    config = plain_config(encoder.spec()["config"], encoder.head is not None)
    write_checkpoint(folder, config, halves, tokenizer, {})


def plain_config(config: dict[str, Any], head: bool) -> dict[str, Any]:
    """The config.json of an encoder: what defines it, and the class in `transformers`."""
    settings = read_settings({**config, "parts": {}}).as_config()
    family = FAMILIES[settings["model_type"]]
    return {**settings, "architectures": [family + ("ForMaskedLM" if head else "Model")]}


def write_checkpoint(
    folder: Path,
    config: dict[str, Any],
    weights: Mapping[str, torch.Tensor],
    tokenizer: tokenizers.Tokenizer,
    metadata: Mapping[str, str],
) -> None:
    """Writes config.json, tokenizer.json and, in the types that they have, the weights;
    `metadata` goes into their header."""
    with write_atomic(folder / "tokenizer.json") as stream:
        stream.write(tokenizer.to_str().encode())
    with write_atomic(folder / "config.json") as stream:
        stream.write(json.dumps(config, indent=1).encode() + b"\n")
    with write_atomic(folder / "model.safetensors") as stream:
        # a copy of each: safetensors refuses tensors that share memory
        own = {name: tensor.contiguous().clone() for name, tensor in weights.items()}
        stream.write(safetensors.torch.save(own, {"format": "pt", **metadata}))


def load_tokenizer(source: str | Path) -> tokenizers.Tokenizer:
    """The tokenizer of a directory or hub id, with truncation and padding off; tokenizer.json goes
    before vocab.txt.

    Raises SettingsError where there is none, where [PAD], [UNK], [CLS] or [SEP] is missing, or
    where it has more tokens than config.json says that the encoder has embeddings (which
    load_encoder holds it to).
    """
    folder = source_folder(source, weights=False)
    return read_tokenizer(folder, read_json(folder / "config.json").get("vocab_size"))


def _limits(anatomy: Anatomy, tokens: int) -> list[str]:
    limits = []
    if anatomy.sizes.get("type_vocab_size") == 1:
        limits.append(
            "one segment type: tasks that write a text cannot tell its source from its target"
        )
    rows = anatomy.sizes.get("vocab_size", 0)
    if 0 < tokens < rows:
        limits.append(f"{rows - tokens} of {rows} embeddings have no token and are never predicted")
    return limits


def source_folder(source: str | Path, *, weights: bool = True, pickle: bool = False) -> Path:
    """The directory of the source; a hub id is downloaded, or taken from the local cache where
    there is no network."""
    if Path(source).is_dir():
        return Path(source)
    hint = (
        "give a directory with config.json and model.safetensors, "
        "or the id of a model on the Hugging Face hub"
    )
    if Path(source).exists() or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(source)):
        raise SettingsError(f"{source}: no such directory", hint)
    patterns = _HUB_FILES + _HUB_SAFETENSORS * weights + _HUB_PICKLES * pickle
    import huggingface_hub  # here alone: it is slow to import
    from huggingface_hub.errors import HfHubHTTPError

    # The bases are OSError and the error class of the HTTP library, which differs between releases
    # of the hub's client.
    hub_errors: tuple[Any, ...] = (OSError, ValueError, *HfHubHTTPError.__bases__)
    try:
        return Path(huggingface_hub.snapshot_download(str(source), allow_patterns=patterns))
    except hub_errors as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SettingsError(
            f"{source}: no such directory, and the hub does not give it: {why}", hint
        ) from None


def open_checkpoint(folder: Path, pickle: bool) -> tuple[list[Path], Anatomy]:
    """The weight files of a directory and what their headers say they hold."""
    claimed = read_json(folder / "config.json")
    if claimed.get("format") == FORMAT:
        raise SettingsError(f"{folder}: is in nlpkit's own format, for an encoder of its own")
    files = weight_files(folder, pickle)
    found: dict[str, Any] = {}
    for path in files:
        found |= dict(headers(path))
    return files, dissect(claimed, found)


def _vocabulary(folder: Path, rows: int | None) -> tuple[dict[str, Any], list[str]]:
    """The part of the report on the tokenizer, and why it does not load where there is one."""
    path = tokenizer_file(folder)
    none = {"tokenizer": None, "vocabulary_size": 0, "vocabulary_sha256": None}
    if path is None:
        return none, []
    try:
        tokenizer = read_tokenizer(folder, rows)
    except SettingsError as error:
        return none, [error.message]
    return {
        "tokenizer": f"{path.name} ({type(tokenizer.model).__name__})",
        "vocabulary_size": tokenizer.get_vocab_size(),
        "vocabulary_sha256": vocabulary_hash(tokenizer),
    }, []
