"""A set of token sequences (keys), with values where wanted, on the host: built, saved, loaded,
looked up.

    trie = TokenTrie.from_sequences([(7, 8), (7,), (9, 8)], vocabulary_size=21128)
    node = trie.find((7,))                     # where a beam stands after token 7
    # range(0, 2): the keys that go on from here, in lexicographic order
    trie.key_range(node)
    trie.keys(trie.key_range(node)[:10])       # [(7,), (7, 8)]: its completions
    trie.values.of(0)                          # the values given with key 0, where there are values
    TrieTable.of(trie, eos_id=102)             # for decoding, see `table`

A key's id is its rank in lexicographic order, so that the keys below a node are a range, and the
way from an id back to its tokens is a binary search in `first_key` of each level (see `csr`): no
map from keys to ids or back is stored.

Source: https://arxiv.org/abs/2010.00904 (decoding under a trie), https://kexue.fm/archives/8802
(look-ahead by ranges).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from nlpkit.decoding.trie import file as trie_file
from nlpkit.decoding.trie.arrays import read_arrays, write_arrays
from nlpkit.decoding.trie.csr import (
    CHUNK,
    Csr,
    Sequences,
    boundaries,
    checked,
    compile_csr,
    flatten,
    sort,
)
from nlpkit.decoding.trie.values import Values
from nlpkit.errors import SettingsError


@dataclass(frozen=True, eq=False)
class TokenTrie:
    """Immutable. A node is its number (see `csr`), a key its rank in lexicographic order; `len`
    counts keys."""

    csr: Csr
    vocabulary_size: int
    vocabulary_hash: str
    """Of the tokenizer that made the keys; empty where it does not matter."""
    values: Values | None = None

    @classmethod
    def from_sequences(
        cls,
        sequences: Iterable[Sequence[int]],
        vocabulary_size: int,
        vocabulary_hash: str = "",
        values: Iterable[str] | None = None,
    ) -> TokenTrie:
        """The trie of any iterable of sequences, in any order, equal ones merged.

        Args:
            sequences: token ids in [0, vocabulary_size). An empty sequence is a key.
            vocabulary_size: V.
            vocabulary_hash: see the field.
            values: a line of text for each sequence; a key has those of all its sequences, in the
                order given.

        Raises DataError for a token outside the vocabulary, and for values that do not match the
        sequences.
        """
        return cls.from_arrays(*flatten(sequences), vocabulary_size, vocabulary_hash, values)

    @classmethod
    def from_arrays(
        cls,
        flat: np.ndarray,
        lengths: np.ndarray,
        vocabulary_size: int,
        vocabulary_hash: str = "",
        values: Iterable[str] | None = None,
    ) -> TokenTrie:
        """As `from_sequences`, of sequences that lie one after another: `flat` (tokens of all),
        `lengths` (sequences,), integers of any width."""
        keys = checked(np.asarray(flat), np.asarray(lengths, np.int64), vocabulary_size)
        order, is_new = sort(keys, vocabulary_size)
        own = None if values is None else Values.grouped(values, order, np.flatnonzero(is_new))
        first = order[is_new]
        distinct = Sequences(keys.flat, keys.start[first], keys.length[first])
        return cls(compile_csr(distinct, vocabulary_size), vocabulary_size, vocabulary_hash, own)

    def __len__(self) -> int:
        return int(self.csr.first_key[-1])

    @cached_property
    def bounds(self) -> list[int]:
        """The first node of each level, and the number of nodes."""
        return boundaries(self.csr.first_child)

    @property
    def depth(self) -> int:
        """The most tokens of a key."""
        return len(self.bounds) - 2

    def children(self, node: int) -> range:
        """The nodes that one more token leads to, in the order of the tokens."""
        return range(self.csr.first_child[node] >> 1, self.csr.first_child[node + 1] >> 1)

    def is_end(self, node: int) -> bool:
        """Whether a key ends here; it is then `key_range(node)[0]`."""
        return bool(self.csr.first_child[node] & 1)

    def find(self, tokens: Iterable[int]) -> int:
        """The node after these tokens, -1 where no key begins so."""
        node = 0
        for token in tokens:
            children = self.children(node)
            labels = self.csr.label[children.start : children.stop]
            place = int(np.searchsorted(labels, token))
            if place == len(labels) or labels[place] != token:
                return -1
            node = children[place]
        return node

    def key_range(self, node: int) -> range:
        """The keys at and below a node, -1 has none."""
        if node < 0:
            return range(0)
        last = node
        while children := self.children(last):
            last = children[-1]
        return range(
            int(self.csr.first_key[node]), int(self.csr.first_key[last]) + self.is_end(last)
        )

    def keys(self, keys: Sequence[int] | np.ndarray) -> list[tuple[int, ...]]:
        """The tokens of keys by their ids, in the order given. Raises IndexError for an id outside
        [0, len(self))."""
        ids = np.asarray(keys, np.int64)
        if len(ids) and not (ids.min() >= 0 and ids.max() < len(self)):
            raise IndexError(f"expected keys in [0, {len(self)})")
        flat, lengths = self._tokens(ids)
        tokens = flat.tolist()
        found = []
        start = 0
        for length in lengths.tolist():
            found.append(tuple(tokens[start : start + length]))
            start += length
        return found

    def _tokens(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(flat, lengths) of keys by their ids: on every level the last node whose first key is not
        beyond the key."""
        first_child, label, first_key = self.csr
        columns = []
        lengths = np.zeros(len(keys), np.int64)
        alive = np.arange(len(keys))
        node = np.zeros(len(keys), np.int64)
        for start, end in pairwise(self.bounds[1:]):
            goes_on = (first_child[node] & 1 == 0) | (first_key[node] != keys[alive])
            alive = alive[goes_on]
            node = start + np.searchsorted(first_key[start:end], keys[alive], "right") - 1
            columns.append((alive, label[node]))
            lengths[alive] += 1
        flat = np.empty(int(lengths.sum()), label.dtype)
        begin = np.cumsum(lengths) - lengths
        for place, (rows, tokens) in enumerate(columns):
            flat[begin[rows] + place] = tokens
        return flat, lengths

    def save(self, path: str | Path) -> None:
        """Writes the file that is kept (see `trie_file`), and removes what was compiled from an
        older one."""
        arrays = {"keys": trie_file.to_marisa(self._key_bytes())}
        if self.values is not None:
            arrays |= {"value_ends": self.values.ends, "values": self.values.text}
        plain = {
            "keys": len(self),
            "vocabulary_size": self.vocabulary_size,
            "vocabulary_sha256": self.vocabulary_hash,
        }
        write_arrays(Path(path), trie_file.KEPT, plain, arrays)
        trie_file.compiled_path(path).unlink(missing_ok=True)

    def _key_bytes(self) -> Iterator[bytes]:
        kind = trie_file.label_type(self.vocabulary_size)
        for first in range(0, len(self), CHUNK):
            flat, lengths = self._tokens(np.arange(first, min(first + CHUNK, len(self))))
            data = flat.astype(kind).tobytes()
            start = 0
            for length in (kind.itemsize * lengths).tolist():
                yield data[start : start + length]
                start += length

    @classmethod
    def load(cls, path: str | Path, vocabulary_hash: str | None = None) -> TokenTrie:
        """Opens what `save` wrote. The first time it is compiled, and that is left beside it where
        it can be written.

        Raises SettingsError for a missing, damaged or truncated file, for what was compiled from
        another file, and for keys made with another tokenizer than that of `vocabulary_hash` (None:
        any).
        """
        header, arrays = read_arrays(Path(path), trie_file.KEPT)
        own_hash = header["vocabulary_sha256"]
        if vocabulary_hash not in (None, own_hash):
            raise SettingsError(
                f"{path}: made with another tokenizer: "
                f"expected vocabulary {vocabulary_hash}, got {own_hash}",
                hint="nlpkit trie build makes one for this tokenizer",
            )
        values = Values(arrays["value_ends"], arrays["values"]) if "values" in arrays else None
        csr = trie_file.compiled(Path(path), header, arrays["keys"])
        return cls(csr, header["vocabulary_size"], own_hash, values)
