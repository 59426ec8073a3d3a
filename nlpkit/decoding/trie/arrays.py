"""Files of named arrays, mapped into memory once they were found whole.

A file is a safetensors file: a header in JSON, then arrays that can be mapped as they lie. Its
metadata hold the kind of the file and, in JSON, plain values; one of them is the sha256 of all the
others and of the name, type, shape and bytes of every array. Nothing of a file is used, and no
other library sees it, before

    its kind, its version, and the names, types and dimensions of its arrays are the expected ones
    the sha256 is that of the content
    the arrays make sense together (`Kind.problem`)

The last two read all of the file: 1 to 2 GB in a second. They are done once in a process; a file is
known again by its place, size and time.

Source: https://github.com/huggingface/safetensors (the container).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from nlpkit.errors import SettingsError
from nlpkit.jsonl import write_atomic

Arrays = dict[str, np.ndarray]
Header = dict[str, Any]

_whole: set[tuple[str, int, int, int]] = set()  # files that this process has checked


@dataclass(frozen=True)
class Array:
    """What an array of a file is: its type as safetensors writes it, one of several where it has a
    choice, and its dimensions."""

    types: tuple[str, ...]
    dimensions: int = 1
    is_optional: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    version: int
    plain: Mapping[str, type]
    """The plain values and their types."""
    arrays: Mapping[str, Array]
    problem: Callable[[Header, Arrays], str | None]
    """What keeps arrays of the right types from being used, None where nothing does."""
    remedy: str = field(default="make it again")
    """The hint where a file is refused."""


def write_arrays(path: Path, kind: Kind, plain: Header, arrays: Arrays) -> str:
    """Writes one file, atomically; the same bytes for the same content. Returns its sha256.

    `plain` are the values of `Kind.plain`; kind, version and sha256 are added.
    """
    header = {"version": kind.version, **plain}
    header["sha256"] = fingerprint(header, arrays)
    with write_atomic(path) as stream:
        stream.write(safetensors.numpy.save(arrays, {f"nlpkit {kind.name}": json.dumps(header)}))
    return header["sha256"]


def read_arrays(path: Path, kind: Kind) -> tuple[Header, Arrays]:
    """What `write_arrays` wrote: the plain values, sha256 with them, and the arrays, mapped.

    Raises SettingsError where there is no such file, it is of another kind or version, or anything
    in it is not as it was written.
    """
    known = _place_size_time(path)
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:  # torch alone maps
            header = _header(file.metadata(), path, kind)
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            types = {
                name: (part.get_dtype(), len(part.get_shape())) for name, part in found.items()
            }
            _check_types(types, path, kind)
            arrays = {name: file.get_tensor(name).numpy() for name in found}
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        why = f"damaged, truncated, or no {kind.name} at all"
        raise SettingsError(f"{path}: {why}: {error}", kind.remedy) from None
    if known not in _whole:
        _check_content(path, kind, header, arrays)
        _whole.add(known)
    return header, arrays


def fingerprint(header: Header, arrays: Arrays) -> str:
    """sha256 of the plain values, and of the name, type, shape and bytes of the arrays."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _header(metadata: dict[str, str] | None, path: Path, kind: Kind) -> Header:
    text = (metadata or {}).get(f"nlpkit {kind.name}")
    if text is None:
        raise SettingsError(f"{path}: expected a {kind.name}, got something else")
    header = json.loads(text)
    if not isinstance(header, dict):
        raise SettingsError(f"{path}: damaged: its plain values are none", kind.remedy)
    if header.get("version") != kind.version:
        raise SettingsError(
            f"{path}: expected version {kind.version}, got {header.get('version')}", kind.remedy
        )
    expected = {"version": int, "sha256": str, **kind.plain}
    types = {name: type(value) for name, value in header.items()}
    if types != expected:
        raise SettingsError(
            f"{path}: damaged: expected the plain values {', '.join(sorted(expected))}, "
            f"got {', '.join(sorted(types))}",
            kind.remedy,
        )
    return header


def _check_types(types: dict[str, tuple[str, int]], path: Path, kind: Kind) -> None:
    needed = {name for name, array in kind.arrays.items() if not array.is_optional}
    if not needed <= types.keys() <= kind.arrays.keys():
        raise SettingsError(
            f"{path}: damaged: expected the arrays {', '.join(sorted(kind.arrays))}, "
            f"got {', '.join(sorted(types))}",
            kind.remedy,
        )
    for name, (type_, dimensions) in types.items():
        array = kind.arrays[name]
        if type_ not in array.types or dimensions != array.dimensions:
            raise SettingsError(
                f"{path}: damaged: {name}: expected {' or '.join(array.types)} of "
                f"{array.dimensions} dimensions, got {type_} of {dimensions}",
                kind.remedy,
            )


def _check_content(path: Path, kind: Kind, header: Header, arrays: Arrays) -> None:
    """The two checks that read all of a file."""
    plain = {name: value for name, value in header.items() if name != "sha256"}
    if fingerprint(plain, arrays) != header["sha256"]:
        raise SettingsError(f"{path}: damaged: not the content that it was saved with", kind.remedy)
    problem = kind.problem(header, arrays)
    if problem is not None:
        raise SettingsError(f"{path}: damaged: {problem}", kind.remedy)


def _place_size_time(path: Path) -> tuple[str, int, int, int]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    return os.path.realpath(path), status.st_ino, status.st_size, status.st_mtime_ns
