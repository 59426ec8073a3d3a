"""Loads a BERT-family checkpoint as it is, or says why not: its encoder, its tokenizer, and a
report on both.

A source is a directory or an id of the Hugging Face hub. `anatomy` decides by the tensors what the
checkpoint is; `weights` reads the files. An encoder that is returned has all of its weights from
the checkpoint.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import tokenizers
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from tokenizers import models, normalizers, pre_tokenizers, processors

from nlpkit.config import Rate
from nlpkit.encoders import transformer
from nlpkit.encoders.checkpoint.files import headers, read_json, tensors, weight_files
from nlpkit.encoders.checkpoint.inspect import Anatomy, dissect
from nlpkit.encoders.language_head import published_head_name
from nlpkit.encoders.transformer import FAMILIES
from nlpkit.errors import SettingsError
from nlpkit.jsonl import write_atomic
from nlpkit.text.tokenizer import SPECIAL_TOKENS, check_backend, read_backend, vocabulary_hash

OUTPUT_LAYER = "cls.predictions.decoder.weight"

_HUB_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
_HUB_SAFETENSORS = ["model*.safetensors", "model.safetensors.index.json"]
_HUB_PICKLES = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]
# The bases are OSError and the error class of the HTTP library, which differs between releases of
# the hub's client.
_HUB_ERRORS: tuple[Any, ...] = (OSError, ValueError, *HfHubHTTPError.__bases__)


@dataclass(frozen=True)
class CheckpointConfig:
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
    """Where config.json or the tokenizer contradicts the weights, in words."""
    problems: list[str]
    """Why the checkpoint does not load, in words."""
    missing: list[str]
    unexpected: list[str]
    heads: list[str]
    """Tensors of known heads (masked LM, pooler, classifier), which an encoder leaves out."""
    parameters: int
    """Numbers in the stored tensors of the encoder."""
    dtype: str
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
    folder = _folder(source, pickle=pickle)
    files, anatomy = _dissect(folder, pickle)
    vocabulary, complaints = _vocabulary(folder, anatomy.sizes.get("vocab_size"))
    return CheckpointReport(
        source=str(source),
        architecture=anatomy.architecture,
        claimed={
            key: read_json(folder / "config.json").get(key)
            for key in ("model_type", "architectures")
        },
        sizes=anatomy.sizes,
        disagreements=anatomy.disagreements + complaints,
        problems=anatomy.problems,
        missing=anatomy.missing,
        unexpected=anatomy.unexpected,
        heads=anatomy.heads,
        parameters=sum(torch.Size(header.shape).numel() for header in anatomy.body.values()),
        dtype=", ".join(sorted({header.dtype for header in anatomy.body.values()})),
        bytes=sum(path.stat().st_size for path in files),
        **vocabulary,
    )


def load_encoder(
    source: str | Path, *, pickle: bool = False, head: bool = False
) -> transformer.Encoder:
    """The encoder with its weights, in float32, and with its masked-LM head if asked for.

    Raises SettingsError unless every tensor that is wanted is there and fits.
    """
    files, anatomy = _dissect(_folder(source, pickle=pickle), pickle)
    if anatomy.problems:
        raise SettingsError(
            f"{source}: {anatomy.problems[0]}", hint=f"nlpkit encoder info {source}"
        )
    encoder = transformer.Encoder(anatomy.config, head=head)
    output_VE = None
    places = {name: encoder.model.state_dict()[own] for name, own in anatomy.own_names.items()}
    if encoder.head is not None:
        lacking = encoder.head.state_dict().keys() - anatomy.language_head.values()
        if lacking:
            raise SettingsError(
                f"{source}: has no masked-LM head, which is needed here: no {', '.join(sorted(lacking))}"
            )
        places |= {
            name: encoder.head.state_dict()[own] for name, own in anatomy.language_head.items()
        }
    for name, tensor in (pair for path in files for pair in tensors(path)):
        if name in places and places[name].shape != tensor.shape:
            raise SettingsError(
                f"{source}: {name}: expected {tuple(places[name].shape)}, got {tuple(tensor.shape)}"
            )
        if name in places:
            places[name].copy_(tensor)
        elif head and name == OUTPUT_LAYER:
            output_VE = tensor
    if encoder.head is not None and output_VE is not None:
        embedding_VE = encoder.model.embeddings.word_embeddings.weight
        if not torch.equal(output_VE.to(embedding_VE.dtype), embedding_VE):
            raise SettingsError(
                f"{source}: {OUTPUT_LAYER} is not the embeddings: such a head does not load"
            )
    return encoder


def save_encoder(
    folder: Path, encoder: transformer.Encoder, tokenizer: tokenizers.Tokenizer
) -> None:
    """Writes the encoder, with its head if it has one, as a checkpoint that `transformers` reads
    too, in bfloat16."""
    config = encoder.spec()["config"]
    family = config["model_type"]
    body = {f"{family}.{name}": tensor for name, tensor in encoder.model.state_dict().items()}
    head = {} if encoder.head is None else encoder.head.state_dict()
    weights = {**body, **{published_head_name(name): tensor for name, tensor in head.items()}}
    config |= {
        "architectures": [f"{FAMILIES[family]}{'Model' if encoder.head is None else 'ForMaskedLM'}"]
    }
    with write_atomic(folder / "tokenizer.json") as stream:
        stream.write(tokenizer.to_str().encode())
    with write_atomic(folder / "config.json") as stream:
        stream.write(json.dumps(config, indent=1).encode() + b"\n")
    with write_atomic(folder / "model.safetensors") as stream:
        halves = {
            name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
            for name, tensor in weights.items()
        }
        stream.write(safetensors.torch.save(halves, {"format": "pt"}))


def load_tokenizer(source: str | Path) -> tokenizers.Tokenizer:
    """The tokenizer of a directory or hub id, with truncation and padding off; tokenizer.json goes
    before vocab.txt.

    Raises SettingsError where there is none, where [PAD], [UNK], [CLS] or [SEP] is missing, or
    where it has more tokens than config.json says that the encoder has embeddings (which
    load_encoder holds it to).
    """
    folder = _folder(source, weights=False)
    return _read_tokenizer(folder, read_json(folder / "config.json").get("vocab_size"))


def _folder(source: str | Path, *, weights: bool = True, pickle: bool = False) -> Path:
    """The directory of the source; a hub id is downloaded, or taken from the local cache where
    there is no network."""
    if Path(source).is_dir():
        return Path(source)
    hint = "give a directory with config.json and model.safetensors, or the id of a model on the Hugging Face hub"
    if Path(source).exists() or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(source)):
        raise SettingsError(f"{source}: no such directory", hint)
    patterns = _HUB_FILES + _HUB_SAFETENSORS * weights + _HUB_PICKLES * pickle
    try:
        return Path(snapshot_download(str(source), allow_patterns=patterns))
    except _HUB_ERRORS as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SettingsError(
            f"{source}: no such directory, and the hub does not give it: {why}", hint
        ) from None


def _dissect(folder: Path, pickle: bool) -> tuple[list[Path], Anatomy]:
    claimed = read_json(folder / "config.json")
    files = weight_files(folder, pickle)
    return files, dissect(
        claimed, {name: header for path in files for name, header in headers(path)}
    )


def _vocabulary(folder: Path, rows: int | None) -> tuple[dict[str, Any], list[str]]:
    """The part of the report on the tokenizer, and what is wrong with it."""
    try:
        tokenizer = _read_tokenizer(folder, rows)
    except SettingsError as error:
        return {"tokenizer": None, "vocabulary_size": 0, "vocabulary_sha256": None}, [error.message]
    return {
        "tokenizer": f"{_tokenizer_file(folder).name} ({type(tokenizer.model).__name__})",
        "vocabulary_size": tokenizer.get_vocab_size(),
        "vocabulary_sha256": vocabulary_hash(tokenizer),
    }, []


def _read_tokenizer(folder: Path, rows: int | None) -> tokenizers.Tokenizer:
    """The tokenizer, checked against the number of embeddings (None: unknown)."""
    path = _tokenizer_file(folder)
    tokenizer = _from_json(path) if path.suffix == ".json" else _from_vocabulary(path)
    size = 1 + max(tokenizer.get_vocab().values())
    if rows is not None and size > rows:
        raise SettingsError(
            f"{path}: more tokens than embeddings: expected at most {rows}, got {size}"
        )
    return tokenizer


def _tokenizer_file(folder: Path) -> Path:
    for name in ("tokenizer.json", "vocab.txt"):
        if (folder / name).is_file():
            return folder / name
    raise SettingsError(f"{folder}: no tokenizer: expected tokenizer.json or vocab.txt")


def _from_json(path: Path) -> tokenizers.Tokenizer:
    if not isinstance(read_json(path).get("model"), dict):
        raise SettingsError(f'{path}: not a tokenizer: missing field "model"')
    return read_backend(path)


def _from_vocabulary(path: Path) -> tokenizers.Tokenizer:
    """BERT's WordPiece tokenizer over a vocab.txt; the line of a token, counted from 0, is its
    id."""
    settings_file = path.parent / "tokenizer_config.json"
    settings = read_json(settings_file) if settings_file.is_file() else {}
    try:
        lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8: {error}") from None
    ids: dict[str, int] = {}
    for number, token in enumerate(lines):
        if ids.setdefault(token, number) != number:
            first = ids[token] + 1
            raise SettingsError(f'{path}:{number + 1}: "{token}" is already on line {first}')
    tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [token for token in (*SPECIAL_TOKENS, "[MASK]") if token in lines]
    tokenizer.add_special_tokens(special)
    if "[CLS]" in special and "[SEP]" in special:
        ends = [(token, lines.index(token)) for token in ("[SEP]", "[CLS]")]
        tokenizer.post_processor = processors.BertProcessing(*ends)
    check_backend(tokenizer, path)
    return tokenizer
