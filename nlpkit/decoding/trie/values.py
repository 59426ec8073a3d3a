"""Lines of text that belong to the keys of a trie, such as the objects of a knowledge base: two
arrays, no map."""

from __future__ import annotations

import codecs
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nlpkit.decoding.trie.csr import gather
from nlpkit.errors import DataError

LINE_FEED = ord("\n")
AT_ONCE = 1 << 24  # bytes that are looked through together


@dataclass(frozen=True, eq=False)
class Values:
    """Lines of text of every key, in one array of bytes that may be mapped from a file."""

    ends: np.ndarray
    """Where the lines of each key end, int64."""
    text: np.ndarray
    """UTF-8, uint8, a line feed after every line."""

    @classmethod
    def grouped(cls, values: Iterable[str], order: np.ndarray, first: np.ndarray) -> Values:
        """Values sorted by `order`; key i has those from `first[i]` to `first[i + 1]`.

        Raises DataError for a value of several lines, and for another number of values than that of
        `order`.
        """
        data = bytearray()
        ends = array("q")
        for value in values:
            if "\n" in value:
                raise DataError(f"value {len(ends)}: expected one line of text, got {value!r}")
            data += value.encode() + b"\n"
            ends.append(len(data))
        if len(ends) != len(order):
            raise DataError(f"values: expected one for each of {len(order)} keys, got {len(ends)}")
        end = np.asarray(ends)
        length = np.diff(end, prepend=0)[order]
        text = gather(np.frombuffer(data, np.uint8), end[order] - length, length)
        last = np.append(first[1:], len(order))[: len(first)] - 1  # the last value of each key
        return cls(np.cumsum(length)[last], text)

    def of(self, key: int) -> list[str]:
        """The values of key number `key`, in the order in which they were given."""
        start = int(self.ends[key - 1]) if key else 0
        return self.text[start : int(self.ends[key])].tobytes().decode().split("\n")[:-1]

    def problem(self, keys: int) -> str | None:
        """What makes arrays from a file no values of so many keys, None where they are."""
        ends = self.ends
        if len(ends) != keys:
            return f"values of {len(ends)} keys, not of {keys}"
        if (np.diff(ends, prepend=0) <= 0).any() or (ends[-1] if keys else 0) != len(self.text):
            return "values out of range"
        if (self.text[ends - 1] != LINE_FEED).any():
            return "values that do not end where a line ends"
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for start in range(0, len(self.text), AT_ONCE):
                decoder.decode(self.text[start : start + AT_ONCE].tobytes())
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "values that are not UTF-8"
        return None
