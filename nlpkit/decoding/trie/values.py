"""Lines of text that belong to the keys of a trie, such as the objects of a knowledge base: two
arrays, no map."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nlpkit.decoding.trie.csr import gather
from nlpkit.errors import DataError


@dataclass(frozen=True, eq=False)
class Values:
    """Lines of text of every key, in one array of bytes that may be mapped from a file."""

    ends: np.ndarray
    """Where the lines of each key end, int64."""
    text: np.ndarray
    """UTF-8, uint8, a line feed after every line."""

    @classmethod
    def grouped(cls, values: Iterable[str], order: np.ndarray, first: np.ndarray) -> Values:
        """Values sorted by `order`; key i has those from `first[i]` to `first[i + 1]`."""
        data, ends = bytearray(), array("q")
        for value in values:
            if "\n" in value:
                raise DataError(f"value {len(ends)}: expected one line of text, got {value!r}")
            data += value.encode() + b"\n"
            ends.append(len(data))
        if len(ends) != len(order):
            raise DataError(f"values: expected one for each of {len(order)} keys, got {len(ends)}")
        end = np.asarray(ends)
        length = np.diff(end, prepend=0)[order]
        text = gather(np.frombuffer(data, np.uint8), (end[order] - length), length)
        return cls(np.cumsum(length)[np.append(first[1:], len(order))[: len(first)] - 1], text)

    def of(self, key: int) -> list[str]:
        """The values of a key."""
        start = int(self.ends[key - 1]) if key else 0
        return self.text[start : int(self.ends[key])].tobytes().decode().split("\n")[:-1]
