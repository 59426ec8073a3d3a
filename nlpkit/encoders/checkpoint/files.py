"""The weight files of a checkpoint directory: names, shapes and types of the tensors, and the
tensors one by one.

`model.safetensors`, whole or in shards, of which the headers alone can be read. A matrix that lies
there in few bits (`bits`) comes out as any other, in float32. A `pytorch_model.bin` is opened only
where `pickle=True` asks for it, and then as tensors only: nothing in it is run.
"""

from __future__ import annotations

import json
import pickle as pickle_format
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from nlpkit.encoders.checkpoint import bits as few_bits
from nlpkit.errors import SettingsError

_NUMBERS = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint"}
_BIN_HINT = (
    "a pytorch_model.bin is read, as tensors only, with --set encoder.pickle=true "
    "(encoder info: --pickle)"
)


@dataclass(frozen=True)
class Header:
    """What is known of a tensor without reading it; `dtype` has torch's name."""

    shape: tuple[int, ...]
    dtype: str
    bits: int | None = None
    """Of a weight in the file, where it is stored in blocks with scales."""


def weight_files(folder: Path, pickle: bool) -> list[Path]:
    """The one file or the shards. Raises SettingsError where there is none, or only a pickle not
    asked for."""
    for name in ["model.safetensors", "pytorch_model.bin"][: 1 + pickle]:
        if (folder / name).is_file():
            return [folder / name]
        if (index := folder / f"{name}.index.json").is_file():
            # the name alone: a shard lies beside its index
            return [folder / Path(shard).name for shard in _shards(index)]
    raise SettingsError(f"{folder}: no weights: expected model.safetensors", _BIN_HINT)


def _shards(index: Path) -> list[str]:
    """The files that an index names, sorted."""
    places = read_json(index).get("weight_map")
    names = list(places.values()) if isinstance(places, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise SettingsError(f'{index}: "weight_map": expected an object of file names')
    return sorted(set(names))


def headers(path: Path) -> Iterator[tuple[str, Header]]:
    """(name, header) of every tensor of one file; no weights come into memory. Raises SettingsError
    for a bad file."""
    if path.suffix == ".bin":
        for name, tensor in _unpickle(path, "meta").items():
            yield name, Header(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        return
    with _open_safetensors(path) as file:
        stored = _stored(file)
        matrices = few_bits.matrices(path, stored, file.metadata())
    parts = _parts(matrices)
    for name, matrix in matrices.items():
        yield name, Header(matrix.shape, "float32", matrix.bits)
    for name, (shape, dtype) in stored.items():
        if name not in parts:
            yield name, Header(shape, _torch_name(dtype))


def bits_of(path: Path) -> int | None:
    """Bits of a weight in a file whose matrices lie there in few, the fewest; None for others."""
    return min((h.bits for _, h in headers(path) if h.bits is not None), default=None)


def tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of every tensor of one file, on the CPU. Raises SettingsError for a bad
    file."""
    if path.suffix == ".bin":
        yield from _unpickle(path, "cpu").items()
        return
    with _open_safetensors(path) as file:
        stored = _stored(file)
        matrices = few_bits.matrices(path, stored, file.metadata())
        parts = _parts(matrices)
        for name, matrix in matrices.items():
            codes, scales = matrix.parts(name)
            weight_RC = few_bits.unpack(
                file.get_tensor(codes), file.get_tensor(scales), matrix.bits
            )
            yield name, weight_RC
        for name in stored:
            if name not in parts:
                yield name, file.get_tensor(name)


def _stored(file: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> (shape, type) of what lies in an open safetensors file."""
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}


def _parts(matrices: dict[str, few_bits.Matrix]) -> set[str]:
    """The names of the tensors in which the matrices are stored."""
    return {part for name, matrix in matrices.items() for part in matrix.parts(name)}


def check_finite(where: Any, name: str, tensor: torch.Tensor) -> None:
    """Raises SettingsError that names the file `where` and the tensor, of any shape, if there is a
    NaN or an infinite number in it. Whole numbers pass.

    One pass over the tensor without a copy: a NaN goes through the least and the largest.
    """
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return
    least, largest = torch.aminmax(tensor)
    if not (torch.isfinite(least) and torch.isfinite(largest)):
        raise SettingsError(f"{where}: {name}: not all of its numbers are finite")


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file. Raises SettingsError where there is none."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise SettingsError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _torch_name(dtype: str) -> str:
    """BF16 -> bfloat16; what is not letters and bits (BOOL, F8_E4M3) stays as it is."""
    kind = re.fullmatch(r"([A-Z]+)(\d+)", dtype)
    return _NUMBERS.get(kind[1], kind[1]) + kind[2] if kind else dtype


def _open_safetensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise SettingsError(f"{path}: damaged or missing: {error}") from None


def _unpickle(path: Path, device: str) -> dict[str, torch.Tensor]:
    try:
        tensors = torch.load(path, map_location=device, weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle_format.UnpicklingError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise SettingsError(f"{path}: damaged, missing or more than tensors: {why}") from None
    if not isinstance(tensors, dict) or not all(
        isinstance(tensor, torch.Tensor) for tensor in tensors.values()
    ):
        raise SettingsError(f"{path}: expected a dict of tensors")
    return tensors
