"""A trie on disk: the file that is kept, and the compiled arrays beside it, which can be made anew.

    F        the keys as a marisa trie (5 to 10 bytes a key), the values, and whose tokens they are
    F.csr    the arrays of `csr`, mapped into memory when opened; it names the sha256 of its F

Both are files of `arrays`: many tools open them, and a key file cannot be parted from its header as
it could from a JSON beside it. Both are checked before they are used: against damage by the sha256,
which is no signature, and F.csr against arrays that make no sense, so that no walk leaves them. The
marisa trie is a library's own bytes, and the library trusts them: made by hand, with a right
sha256, they can crash the process or keep it busy for ever (5 and 1 of 150 tried) where F.csr is
made from them, before a key of theirs is seen here. So open only files whose origin is known.

Source: https://github.com/s-yata/marisa-trie (the keys).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import marisa_trie
import numpy as np

from nlpkit.decoding.trie.arrays import Array, Arrays, Header, Kind, read_arrays, write_arrays
from nlpkit.decoding.trie.csr import (
    CHUNK,
    MOST_TOKENS,
    Csr,
    Sequences,
    compile_csr,
    problem_of,
)
from nlpkit.decoding.trie.values import Values
from nlpkit.errors import NlpkitError, SettingsError


def _problem_of_kept(header: Header, arrays: Arrays) -> str | None:
    if not 0 < header["vocabulary_size"] < 1 << 31:
        return f"a vocabulary of {header['vocabulary_size']} tokens"
    if ("values" in arrays) != ("value_ends" in arrays):
        return "values without their ends, or ends without values"
    if "values" not in arrays:
        return None
    return Values(arrays["value_ends"], arrays["values"]).problem(header["keys"])


def _problem_of_compiled(header: Header, arrays: Arrays) -> str | None:
    return problem_of(Csr(**arrays), header["vocabulary_size"])


KEPT = Kind(
    name="trie",
    version=2,
    plain={"keys": int, "vocabulary_size": int, "vocabulary_sha256": str},
    arrays={
        "keys": Array(("U8",)),
        "value_ends": Array(("I64",), is_optional=True),
        "values": Array(("U8",), is_optional=True),
    },
    problem=_problem_of_kept,
    remedy="nlpkit trie build makes it again",
)
COMPILED = Kind(
    name="compiled trie",
    version=2,
    plain={"of": str, "vocabulary_size": int},
    arrays={
        "first_child": Array(("I32",)),
        "label": Array(("I16", "I32")),
        "first_key": Array(("I32",)),
    },
    problem=_problem_of_compiled,
    remedy="delete it: it is made anew",
)


def label_type(vocabulary_size: int) -> np.dtype:
    """A token in a key: big-endian, so that the order of the bytes is that of the tokens."""
    return np.dtype(">u2" if vocabulary_size <= 1 << 16 else ">u4")


def to_marisa(keys: Iterable[bytes]) -> np.ndarray:
    """The keys, read once, as a marisa trie that gives them back in the order of their bytes: uint8
    (bytes of the file,)."""
    trie = marisa_trie.BinaryTrie(iter(keys), order=marisa_trie.LABEL_ORDER)
    return np.frombuffer(trie.tobytes(), np.uint8)


def from_marisa(data: np.ndarray, vocabulary_size: int) -> Sequences:
    """The keys of `to_marisa`, sorted; `data` is uint8 (bytes,).

    Raises ValueError where the bytes are no marisa trie, or hold another number of keys than they
    say, or keys that are no sequences of tokens.
    """
    trie = marisa_trie.BinaryTrie()
    try:
        trie.frombytes(data.tobytes())
    except RuntimeError as error:  # what the library raises
        raise ValueError(f"no marisa trie: {error}") from None
    kind = label_type(vocabulary_size)
    keys = islice(trie.iterkeys(), len(trie) + 1)  # bytes made by hand may never end
    flats = [np.zeros(0, np.int32)]
    lengths = [np.zeros(0, np.int64)]
    while chunk := list(islice(keys, CHUNK)):
        length = np.fromiter(map(len, chunk), np.int64, len(chunk))
        if (length % kind.itemsize).any() or length.max() > MOST_TOKENS * kind.itemsize:
            raise ValueError("keys of half tokens, or too long")
        lengths.append(length // kind.itemsize)
        flats.append(np.frombuffer(b"".join(chunk), kind).astype(np.int32))
    flat = np.concatenate(flats)
    if (flat < 0).any() or (flat >= vocabulary_size).any():
        raise ValueError("tokens outside the vocabulary")
    length = np.concatenate(lengths)
    if len(length) != len(trie):
        raise ValueError(f"expected {len(trie)} keys, got {len(length)} or more")
    return Sequences(flat, np.cumsum(length) - length, length)


def compiled_path(path: str | Path) -> Path:
    """Where the compiled arrays of a trie lie."""
    return Path(f"{path}.csr")


def compiled(path: Path, header: Header, keys: np.ndarray) -> Csr:
    """The compiled arrays of a trie, mapped from the file beside it or made anew from its `keys`,
    the uint8 (bytes,) of `to_marisa`.

    Raises SettingsError where that file is damaged, or was compiled from another trie than that of
    `header`, and where the trie does not hold as many keys as `header` says.
    """
    file = compiled_path(path)
    vocabulary_size = header["vocabulary_size"]
    own = {"of": header["sha256"], "vocabulary_size": vocabulary_size}
    if file.exists():
        found, arrays = read_arrays(file, COMPILED)
        if any(found[name] != value for name, value in own.items()):
            raise SettingsError(
                f"{file}: stale: compiled from another {path.name}", COMPILED.remedy
            )
        csr = Csr(**arrays)
    else:
        try:
            csr = compile_csr(from_marisa(keys, vocabulary_size), vocabulary_size)
        except ValueError as error:
            raise SettingsError(f"{path}: damaged: {error}", KEPT.remedy) from None
    if int(csr.first_key[-1]) != header["keys"]:
        raise SettingsError(
            f"{path}: damaged: expected {header['keys']} keys, got {csr.first_key[-1]}", KEPT.remedy
        )
    if not file.exists():
        # a folder that cannot be written costs the compilation each time, no more
        with contextlib.suppress(NlpkitError):
            write_arrays(file, COMPILED, own, csr._asdict())
    return csr
