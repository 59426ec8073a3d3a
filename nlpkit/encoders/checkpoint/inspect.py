"""What the tensors of a checkpoint say it is, told from names and shapes alone; config.json is only
a claim.

Tensors are named without the prefix of the model (`bert.`), and what old exports from TensorFlow
call `gamma` and `beta` is `weight` and `bias`. Tensors of heads (masked LM, pooler, classifier) are
left aside; each of the encoder's own must have its place, or the checkpoint does not load.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from nlpkit.encoders import transformer
from nlpkit.encoders.checkpoint.files import Header
from nlpkit.encoders.language_head import own_head_name
from nlpkit.encoders.transformer_settings import FAMILIES
from nlpkit.encoders.undrawn import Undrawn
from nlpkit.errors import SettingsError

WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
SEGMENTS = "embeddings.token_type_embeddings.weight"
_TASKS = "embeddings.task_type_embeddings.weight"
_PROJECTION = "embeddings_project.weight"
_QUERY = "encoder.layer.0.attention.self.query.weight"
# sines and cosines, computed where a checkpoint leaves them out
_ROTARY = "encoder.embed_positions.weight"

_SIZES = {
    "vocab_size": (WORDS, 0),
    "embedding_size": (WORDS, 1),
    "hidden_size": (_QUERY, 0),
    "intermediate_size": ("encoder.layer.0.intermediate.dense.weight", 0),
    "max_position_embeddings": (POSITIONS, 0),
    "type_vocab_size": (SEGMENTS, 0),
    "task_type_vocab_size": (_TASKS, 0),
}
"""Key of config.json -> the tensor and the axis where the weights have the same number."""

_BODY = re.compile(r"(embeddings|encoder|embeddings_project)\.")
_BUFFER = re.compile(
    r"embeddings\.(position_ids|token_type_ids)$"
)  # stored by old releases, computed by new ones
_HEAD = re.compile(
    r"(cls|pooler|lm_head|classifier|qa_outputs|sequence_summary"
    r"|discriminator_predictions|generator_predictions|generator_lm_head)\."
)


@dataclass
class Anatomy:
    """The encoder found in a set of tensors, and where it differs from the one that config.json
    describes."""

    architecture: str | None = None
    """bert, electra, ernie, roformer; or roberta, which does not load; None where there is no
    encoder of the family."""
    config: dict[str, Any] = field(default_factory=dict)
    """Of the encoder to build."""
    own_names: dict[str, str] = field(default_factory=dict)
    """Name in the files -> name in the encoder, for the tensors of the encoder."""
    body: dict[str, Header] = field(default_factory=dict)
    """The tensors of the encoder by their own names."""
    heads: list[str] = field(default_factory=list)
    language_head: dict[str, str] = field(default_factory=dict)
    """Name in the files -> name in `LanguageHead`, for the tensors of a masked-LM head."""
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    """Read from the weights, under the names of config.json; `num_attention_heads` alone is
    config.json's own."""
    disagreements: list[str] = field(default_factory=list)
    """Where config.json contradicts the weights, in words."""
    problems: list[str] = field(default_factory=list)
    """Why the checkpoint does not load, in words."""


def dissect(claimed: dict[str, Any], stored: Mapping[str, Header]) -> Anatomy:
    """The anatomy of the tensors `stored` (name in the files -> header); `claimed` is
    config.json."""
    prefixes = [name.removesuffix(WORDS) for name in stored if name.endswith(WORDS)]
    prefixes = [prefix for prefix in prefixes if prefix + _QUERY in stored]
    if len(prefixes) != 1:
        return Anatomy(unexpected=list(stored), problems=[_no_encoder(prefixes, stored)])
    own_names = {
        name: _own_name(name, prefixes[0]) for name in stored if name.startswith(prefixes[0])
    }
    names = [own_names.get(name, name) for name in stored]
    own_names = {
        name: own for name, own in own_names.items() if _BODY.match(own) and not _BUFFER.match(own)
    }
    body = {own: stored[name] for name, own in own_names.items()}
    anatomy = Anatomy(
        _architecture(claimed, prefixes[0], body, names), own_names=own_names, body=body
    )
    anatomy.config = {**claimed, "model_type": anatomy.architecture}
    anatomy.config.pop("parts", None)  # means something in nlpkit's own format alone
    if _TASKS in body:
        anatomy.config["use_task_id"] = True
    anatomy.heads = [name for name in names if _HEAD.match(name)]
    anatomy.language_head = {
        name: own for name in stored if (own := own_head_name(name)) is not None
    }
    anatomy.unexpected = [name for name in names if not (_BODY.match(name) or _HEAD.match(name))]
    anatomy.sizes = _sizes(claimed, body)
    anatomy.disagreements = _disagreements(claimed, anatomy)
    _compare(anatomy)
    return anatomy


def _no_encoder(prefixes: list[str], names: Iterable[str]) -> str:
    if prefixes:
        return f"expected one encoder in the weights, got {len(prefixes)}: {_some(prefixes)}"
    expected = f"expected {WORDS} and {_QUERY}, got {_some(names)}"
    return f"the weights are no BERT-family encoder: {expected}"


def _own_name(name: str, prefix: str) -> str:
    own_name = name.removeprefix(prefix)
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", own_name))


def _architecture(
    claimed: dict[str, Any], prefix: str, body: Mapping[str, Header], names: Iterable[str]
) -> str:
    """One of FAMILIES, or roberta. Where the tensors leave a choice it makes no difference to the
    encoder."""
    word = prefix.rstrip(".").rpartition(".")[2]
    claim = claimed.get("model_type")
    if POSITIONS not in body:
        # A RoFormer computes its rotary positions. Others without position embeddings (NEZHA has
        # relative ones) would load as one without a word.
        if claim == "nezha" or word == "nezha":
            return "nezha"
        is_roformer = _ROTARY in body or "roformer" in (word, claim)
        return "roformer" if is_roformer else "bert"
    # RoBERTa proper keeps two positions for padding (512 + 2) and has one segment; its positions
    # start at 2.
    two_more = body[POSITIONS].shape[0] % 64 == 2
    one_segment = SEGMENTS in body and body[SEGMENTS].shape[0] == 1
    if (
        word == "roberta"
        or two_more
        or "lm_head.dense.weight" in names
        or (one_segment and claim in ("roberta", "xlm-roberta"))
    ):
        return "roberta"
    if _TASKS in body:
        return "ernie"
    if _PROJECTION in body:
        return "electra"
    return next((name for name in (word, claim) if name in ("bert", "electra", "ernie")), "bert")


def _sizes(claimed: dict[str, Any], body: Mapping[str, Header]) -> dict[str, int]:
    sizes = {key: body[name].shape[axis] for key, (name, axis) in _SIZES.items() if name in body}
    sizes["num_hidden_layers"] = 1 + max(
        int(layer) for layer in re.findall(r"encoder\.layer\.(\d+)", " ".join(body))
    )
    if _ROTARY in body:
        sizes["max_position_embeddings"] = body[_ROTARY].shape[0]
    if "num_attention_heads" in claimed:
        sizes["num_attention_heads"] = claimed["num_attention_heads"]
    return sizes


def _disagreements(claimed: dict[str, Any], anatomy: Anatomy) -> list[str]:
    architecture = str(anatomy.architecture)
    words = [
        f"config.json says {key} {claimed[key]}, the weights have {size}"
        for key, size in anatomy.sizes.items()
        if claimed.get(key) not in (None, size)
    ]
    if claimed.get("model_type") not in (None, architecture):
        words.append(
            f"config.json says model_type {claimed['model_type']}, the weights are {architecture}"
        )
    for name in claimed.get("architectures") or []:
        if not name.lower().startswith(architecture):
            words.append(f"config.json names the class {name}, the weights are {architecture}")
    return words


def _compare(anatomy: Anatomy) -> None:
    """Sets `missing`, and adds to `unexpected` and `problems`, by building the encoder without
    memory for it."""
    if anatomy.architecture not in FAMILIES:
        expected = ", ".join(FAMILIES)
        anatomy.problems.append(
            f"the weights are of another family: expected {expected}, got {anatomy.architecture}"
        )
        return
    if "num_attention_heads" not in anatomy.config:
        anatomy.problems.append(
            "config.json lacks num_attention_heads, which the weights do not tell"
        )
        return
    try:
        with torch.device("meta"), Undrawn():
            encoder = transformer.Encoder(anatomy.config)
    except SettingsError as error:
        anatomy.problems.append(error.message)
        return
    _match(
        anatomy, {name: tuple(tensor.shape) for name, tensor in encoder.model.state_dict().items()}
    )


def _match(anatomy: Anatomy, expected: Mapping[str, tuple[int, ...]]) -> None:
    body, kind = anatomy.body, anatomy.architecture
    anatomy.missing = [name for name in expected if name not in body and name != _ROTARY]
    without_place = [name for name in body if name not in expected]
    anatomy.unexpected += without_place
    misfits = [
        f"{name}: expected {shape}, got {body[name].shape}"
        for name, shape in expected.items()
        if name in body and body[name].shape != shape
    ]
    integers = [
        f"{name} ({header.dtype})" for name, header in body.items() if "float" not in header.dtype
    ]
    if anatomy.missing:
        anatomy.problems.append(f"tensors of the {kind} are missing: {_some(anatomy.missing)}")
    if without_place:
        anatomy.problems.append(
            f"tensors have no place in the {kind} of config.json: {_some(without_place)}"
        )
    if misfits:
        anatomy.problems.append(f"tensors do not fit the {kind} of config.json: {_some(misfits)}")
    if integers:
        anatomy.problems.append(f"tensors are not floating point: {_some(integers)}")


def _some(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
