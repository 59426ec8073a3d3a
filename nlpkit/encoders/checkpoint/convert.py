"""Makes a checkpoint out of another one: fewer layers, more positions, fewer bits, and characters
instead of SentencePiece pieces.

A source is any checkpoint of the BERT family. One whose tokenizer.json is of pieces (XLM-R, e5,
MiniLM, bge-m3) becomes a BERT of characters (`pieces`): RoBERTa's two positions for padding go, one
segment type becomes two equal ones, so that tasks which write can tell source from target, and its
head for masked words, where there is one, comes along. Of any other the vocabulary stays.

    config.json model.safetensors tokenizer.json    as `load` reads them; `transformers` does too,
                                                    but for `bits`
    README.md pretraining.json NOTICE LICENSE       the source's, with a line on what was done
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch

from nlpkit.encoders.checkpoint import bits as few_bits
from nlpkit.encoders.checkpoint import pieces
from nlpkit.encoders.checkpoint.files import Header, check_finite, read_json, tensors
from nlpkit.encoders.checkpoint.inspect import POSITIONS, SEGMENTS, WORDS, dissect
from nlpkit.encoders.checkpoint.load import (
    OUTPUT_LAYER,
    open_checkpoint,
    plain_config,
    source_folder,
    write_checkpoint,
)
from nlpkit.encoders.checkpoint.own import own_spec
from nlpkit.encoders.checkpoint.positions import more_positions
from nlpkit.encoders.checkpoint.tokenizer import read_tokenizer
from nlpkit.encoders.language_head import published_head_name
from nlpkit.encoders.shipped import NOTICE, RECORD, folder_of
from nlpkit.errors import SettingsError
from nlpkit.jsonl import write_atomic

_XLMR_OUTPUT = "lm_head.decoder.weight"
_XLMR_HEAD = {
    "lm_head.dense.weight": "dense.weight",
    "lm_head.dense.bias": "dense.bias",
    "lm_head.layer_norm.weight": "norm.weight",
    "lm_head.layer_norm.bias": "norm.bias",
    "lm_head.bias": "bias",
}
"""Name of a tensor of RoBERTa's masked-LM head -> its name in `LanguageHead`."""
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_GO_ALONG = (NOTICE, "LICENSE", "LICENSE.txt")


@dataclass(frozen=True)
class Conversion:
    """What is asked for."""

    layers: str | None = None
    """Numbers from 0, ascending, with commas; or one number: so many, the first. None keeps all."""
    bits: int | None = None
    """Of a weight, 4 or 8; None keeps the types of the source."""
    positions: int | None = None
    """That the new checkpoint has; None keeps those that are there."""


@dataclass
class _Parts:
    """A checkpoint in memory."""

    source: str
    config: dict[str, Any]
    body: dict[str, torch.Tensor]
    """By the names of the encoder's own state."""
    head: dict[str, torch.Tensor]
    """By the names of `LanguageHead`; empty where there is none that can be used."""
    tokenizer: tokenizers.Tokenizer

    @property
    def depth(self) -> int:
        numbers = {int(match[1]) for name in self.body if (match := _LAYER.match(name))}
        return 1 + max(numbers)


def convert(
    source: str, folder: Path, asked: Conversion, pickle: bool = False
) -> tuple[dict[str, Any], tokenizers.Tokenizer]:
    """Writes the new checkpoint into an empty folder, and tells (what it is, its tokenizer).

    Told are the number of tokens, the layers kept by their numbers in the source, positions,
    whether it has a head, parameters, and bytes and bits of the weights. Raises SettingsError where
    the source does not load, or where what is asked for cannot be made of it.
    """
    old_folder = source_folder(folder_of(source), pickle=pickle)
    if own_spec(old_folder) is not None:
        raise SettingsError(
            f"{source}: is in nlpkit's own format: only the BERT family is converted"
        )
    parts = _read(source, old_folder, pickle)
    layers = _chosen(asked.layers, parts.depth)
    _keep_layers(parts, layers)
    if asked.positions is not None:
        _extend_positions(parts, asked.positions)
    family = parts.config["model_type"]
    weights = {f"{family}.{name}": tensor for name, tensor in parts.body.items()}
    weights |= {published_head_name(name): tensor for name, tensor in parts.head.items()}
    headers = {
        name: Header(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in weights.items()
    }
    problems = dissect(parts.config, headers).problems
    if problems:
        raise SettingsError(f"{source}: {problems[0]}", hint=f"nlpkit encoder info {source}")
    config = plain_config(parts.config, bool(parts.head))
    stored = weights
    metadata: dict[str, str] = {}
    if asked.bits is not None:
        stored, metadata = few_bits.pack_all(weights, asked.bits)
    write_checkpoint(folder, config, stored, parts.tokenizer, metadata)
    _write_tokenizer_config(old_folder, folder)
    _write_card(source, old_folder, folder, {**asdict(asked), "layers": layers}, config)
    report = {
        "source": source,
        "architecture": family,
        "tokens": parts.tokenizer.get_vocab_size(),
        "layers": layers,
        "positions": config["max_position_embeddings"],
        "language_head": bool(parts.head),
        "parameters": sum(tensor.numel() for tensor in weights.values()),
        "bits": asked.bits,
        "bytes": (folder / "model.safetensors").stat().st_size,
    }
    return report, parts.tokenizer


def _read(source: str, folder: Path, pickle: bool) -> _Parts:
    """The source in memory; one of pieces is one of characters then."""
    files, anatomy = open_checkpoint(folder, pickle)
    if anatomy.architecture is None:
        raise SettingsError(f"{source}: {anatomy.problems[0]}")
    body: dict[str, torch.Tensor] = {}
    head: dict[str, torch.Tensor] = {}
    output_VE = None
    for path in files:
        for name, tensor in tensors(path):
            head_name = anatomy.language_head.get(name, _XLMR_HEAD.get(name))
            check_finite(path, name, tensor)
            if name in anatomy.own_names:
                body[anatomy.own_names[name]] = tensor
            elif head_name is not None:
                head[head_name] = tensor
            elif name in (OUTPUT_LAYER, _XLMR_OUTPUT):
                output_VE = tensor
    is_whole = head.keys() == set(_XLMR_HEAD.values())
    if not is_whole or (output_VE is not None and not torch.equal(output_VE, body[WORDS])):
        head = {}
    of_pieces = pieces.is_of_pieces(folder)
    if anatomy.problems and not of_pieces:
        raise SettingsError(f"{source}: {anatomy.problems[0]}", f"nlpkit encoder info {source}")
    if not of_pieces:
        tokenizer = read_tokenizer(folder, len(body[WORDS]))
        return _Parts(source, dict(anatomy.config), body, head, tokenizer)
    characters = pieces.characters_of(folder)
    parts = _Parts(source, dict(anatomy.config), body, head, characters.tokenizer())
    _to_characters(parts, characters, anatomy.architecture)
    return parts


def _to_characters(parts: _Parts, characters: pieces.Characters, architecture: str) -> None:
    """Takes the rows of the tokens, and gives the body the layout of BERT."""
    row_V = torch.tensor(list(characters.rows.values()))
    body, head = parts.body, parts.head
    if len(body[WORDS]) <= int(row_V.max()):
        raise SettingsError(
            f"{parts.source}: more pieces than embeddings: expected at most {len(body[WORDS])}, "
            f"got {int(row_V.max()) + 1}"
        )
    body[WORDS] = body[WORDS][row_V]
    if head:
        head["bias"] = head["bias"][row_V]
    if architecture == "roberta":
        # RoBERTa counts positions from behind that of padding, which has the id of its token
        first = characters.rows["[PAD]"] + 1
        body[POSITIONS] = body[POSITIONS][first:]
    if len(body.get(SEGMENTS, [])) == 1:
        body[SEGMENTS] = body[SEGMENTS].repeat(2, 1)
    family = "bert" if architecture == "roberta" else architecture
    parts.config |= {"model_type": family, "pad_token_id": 0, "vocab_size": len(row_V)}
    if POSITIONS in body:
        parts.config["max_position_embeddings"] = len(body[POSITIONS])
    if SEGMENTS in body:
        parts.config["type_vocab_size"] = len(body[SEGMENTS])


def _chosen(layers: str | None, depth: int) -> list[int]:
    """The numbers of the layers that are kept. Raises SettingsError for some that are not there."""
    if layers is None:
        return list(range(depth))
    if not re.fullmatch(r"\d+(,\d+)*", layers):
        raise SettingsError(f"--layers: expected 0,2,4 or a number of layers, got {layers}")
    numbers = [int(number) for number in layers.split(",")]
    if len(numbers) == 1:
        if not 1 <= numbers[0] <= depth:
            raise SettingsError(f"--layers: expected 1 to {depth} layers, got {numbers[0]}")
        return list(range(numbers[0]))
    if numbers != sorted(set(numbers)) or numbers[-1] >= depth:
        raise SettingsError(f"--layers: expected ascending numbers below {depth}, got {layers}")
    return numbers


def _keep_layers(parts: _Parts, layers: list[int]) -> None:
    kept = {}
    for name, tensor in parts.body.items():
        match = _LAYER.match(name)
        if match is None:
            kept[name] = tensor
        elif int(match[1]) in layers:
            kept[f"encoder.layer.{layers.index(int(match[1]))}.{match[2]}"] = tensor
    parts.body = kept
    parts.config["num_hidden_layers"] = len(layers)


def _extend_positions(parts: _Parts, count: int) -> None:
    if POSITIONS not in parts.body:
        raise SettingsError(
            f"--positions: {parts.source} has none to extend: it computes them",
            hint="set max_position_embeddings in its config.json",
        )
    if count % 64 == 2:
        raise SettingsError(
            f"--positions: {count}: two above a multiple of 64 is what tells RoBERTa from BERT",
            hint=f"--positions {count + 62}",
        )
    try:
        parts.body[POSITIONS] = more_positions(parts.body[POSITIONS], count)
    except SettingsError as error:
        raise SettingsError(f"--{error.message}") from None
    parts.config["max_position_embeddings"] = count


def _write_tokenizer_config(old: Path, new: Path) -> None:
    """Tells `transformers` to take tokenizer.json as it is; by the family's own class it would fold
    letters to lower case. Where the vocabulary stays, the source's file goes along."""
    name = "tokenizer_config.json"
    if pieces.is_of_pieces(old):
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "do_lower_case": False,
        }
        for token in pieces.SPECIAL:
            config[f"{token[1:-1].lower()}_token"] = token
        with write_atomic(new / name) as stream:
            stream.write(json.dumps(config, indent=1).encode() + b"\n")
    elif (old / name).is_file():
        shutil.copyfile(old / name, new / name)


def _write_card(
    source: str, old: Path, new: Path, done: dict[str, Any], config: dict[str, Any]
) -> None:
    """README.md, the record of a pretraining, and notices of licences."""
    name = Path(source).absolute().name
    with_bits = f", weights in {done['bits']} bits" if done["bits"] is not None else ""
    line = (
        f"Converted from {name} by `nlpkit encoder convert`: its layers "
        f"{', '.join(map(str, done['layers']))}{with_bits}; {config['vocab_size']} tokens, "
        f"{config['max_position_embeddings']} positions."
    )
    text = f"# An encoder made from {name}\n\nIts licence is that of {name}.\n"
    if (old / "README.md").is_file():
        text = (old / "README.md").read_text("utf-8", errors="replace").rstrip("\n") + "\n"
        line += " Figures above are of the encoder before."
    with write_atomic(new / "README.md") as stream:
        stream.write(f"{text}\n{line}\n".encode())
    if (old / RECORD).is_file():
        record = read_json(old / RECORD)
        shape = {key: value for key, value in config.items() if key != "architectures"}
        record |= {"shape": shape, "converted": {"source": name, **done}}
        with write_atomic(new / RECORD) as stream:
            stream.write(json.dumps(record, ensure_ascii=False, indent=1).encode() + b"\n")
    for along in _GO_ALONG:
        if (old / along).is_file():
            shutil.copyfile(old / along, new / along)
