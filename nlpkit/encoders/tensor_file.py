"""Tensors in a safetensors file with plain values and a hash of all of it in its header.

The weights of a run and the checkpoint of a training are such files. The hash stands in the file
itself, so that a file which is written anew always fits it. Both are one value of the header, since
safetensors writes several in any order, and equal content is to make equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import torch

from nlpkit.errors import SettingsError
from nlpkit.jsonl import write_atomic

DTYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The names of types in a safetensors file."""


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> None:
    """Writes a safetensors file of tensors of any shape, by name, with plain values as JSON in its
    header, and a hash of all of it.

    Tensors on the CPU are written from where they are: no copy of them is made.
    """
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(plain)
    head = _header(own, f"{_content_sha256(own, text)} {text}")
    with write_atomic(path) as stream:
        stream.write(len(head).to_bytes(8, "little"))
        stream.write(head)
        for name in _in_order(own):
            stream.write(_bytes_of(own[name]))


def _in_order(tensors: dict[str, torch.Tensor]) -> list[str]:
    """The names as the file has them: those of the widest types first, so that every tensor is
    aligned."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _header(tensors: dict[str, torch.Tensor], plain: str) -> bytes:
    """What stands before the tensors, of a length that keeps them aligned."""
    header: dict[str, Any] = {"__metadata__": {"plain": plain}}
    end = 0
    for name in _in_order(tensors):
        tensor = tensors[name]
        start = end
        end += tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return head + b" " * (-len(head) % 8)


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors, plain) as `save_tensors` wrote them, the tensors in their shapes, on the CPU.

    Raises SettingsError for a file that cannot be read, or of which the hash is another.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            text = file.metadata()["plain"]
        is_sealed = not text.startswith("{")  # an earlier version wrote no hash
        sha256, text = text.split(" ", 1) if is_sealed else ("", text)
        plain = json.loads(text)
    except (
        safetensors.SafetensorError,
        OSError,
        RuntimeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from None
    if is_sealed and sha256 != _content_sha256(tensors, text):
        raise SettingsError(f"{path}: damaged: its content is not what its hash says")
    return tensors, plain


def _content_sha256(tensors: dict[str, torch.Tensor], text: str) -> str:
    """A hash of tensors, their names, types and shapes, and of the text that goes with them."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes_of(tensor.contiguous()))
    return digest.hexdigest()


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """A view of a contiguous tensor's bytes, on the CPU."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
