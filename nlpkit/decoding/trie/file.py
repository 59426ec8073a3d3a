"""A trie on disk: the file that is kept, and the compiled arrays beside it, which can be made anew.

    F        the keys as a marisa trie (5 to 10 bytes a key), the values, and whose tokens they are
    F.csr    `head`, `label` and `lo` (see `levels`), mapped into memory when opened

Both are safetensors files: a header in JSON, then arrays that can be mapped as they lie; many tools
open it, and a key file cannot be parted from its header as it could from a JSON beside it. The
header of F has the sha256 of all the rest, which is checked whenever F is read. F.csr names that
sha256; its own gigabytes are not read to check them.

Source: https://github.com/s-yata/marisa-trie (the keys), https://github.com/huggingface/safetensors
(the container).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import marisa_trie
import numpy as np
import safetensors
import safetensors.numpy

from nlpkit.decoding.trie.csr import CHUNK, Levels, Sequences, compile_levels
from nlpkit.errors import NlpkitError, SettingsError
from nlpkit.jsonl import write_atomic

KEPT, COMPILED = "trie", "compiled trie"
VERSION = 1  # of both files


def write_arrays(
    path: Path, kind: str, header: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """One file of arrays and plain values, written atomically; the same bytes for the same
    content."""
    with write_atomic(path) as stream:
        stream.write(safetensors.numpy.save(arrays, {f"nlpkit {kind}": json.dumps(header)}))


def read_arrays(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write_arrays` wrote, the arrays mapped and not yet read. Raises SettingsError where it
    is not that."""
    try:
        with safetensors.safe_open(
            str(path), framework="pt"
        ) as file:  # of the frameworks, torch alone maps
            plain = (file.metadata() or {}).get(f"nlpkit {kind}")
            if plain is None:
                raise SettingsError(f"{path}: expected a {kind}, got something else")
            return json.loads(plain), {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file") from None
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise SettingsError(f"{path}: damaged, truncated, or no {kind} at all: {error}") from None


def fingerprint(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """sha256 of the values and the arrays."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def label_type(vocabulary_size: int) -> str:
    """A token in a key: big-endian, so that the order of the bytes is that of the tokens."""
    return ">u2" if vocabulary_size <= 1 << 16 else ">u4"


def to_marisa(keys: Iterable[bytes]) -> np.ndarray:
    """The keys, read once, as the bytes of a marisa trie that gives them back in the order of their
    bytes."""
    trie = marisa_trie.BinaryTrie(iter(keys), order=marisa_trie.LABEL_ORDER)
    return np.frombuffer(trie.tobytes(), np.uint8)


def from_marisa(data: np.ndarray, vocabulary_size: int) -> Sequences:
    """The keys of `to_marisa`, sorted."""
    trie = marisa_trie.BinaryTrie()
    trie.frombytes(data.tobytes())
    kind = np.dtype(label_type(vocabulary_size))
    keys, flats, lengths = trie.iterkeys(), [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    while chunk := list(islice(keys, CHUNK)):
        lengths.append(np.fromiter(map(len, chunk), np.int64, len(chunk)) // kind.itemsize)
        flats.append(np.frombuffer(b"".join(chunk), kind).astype(np.int32))
    flat, length = np.concatenate(flats), np.concatenate(lengths)
    return Sequences(flat, np.cumsum(length) - length, length)


def compiled_path(path: str | Path) -> Path:
    """Where the compiled arrays of a trie lie."""
    return Path(f"{path}.csr")


def compiled(path: Path, fingerprint: str, keys: np.ndarray, vocabulary_size: int) -> Levels:
    """The compiled arrays of a trie, mapped from the file beside it or made anew.

    Raises SettingsError where that file is damaged, or was compiled from a trie with another
    `fingerprint`.
    """
    file = compiled_path(path)
    if file.exists():
        header, arrays = read_arrays(file, COMPILED)
        if header != {"version": VERSION, "of": fingerprint}:
            raise SettingsError(
                f"{file}: stale: compiled from another {path.name}",
                hint="delete it: it is made anew",
            )
        return Levels(**arrays)
    levels = compile_levels(from_marisa(keys, vocabulary_size), vocabulary_size)
    with contextlib.suppress(
        NlpkitError
    ):  # a folder that cannot be written costs the compilation each time, no more
        write_arrays(file, COMPILED, {"version": VERSION, "of": fingerprint}, levels._asdict())
    return levels
