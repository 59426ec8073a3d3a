"""Link statistics of a training set: how often an alias is marked as a mention where it occurs
(link probability), and how often it means each of its entities (commonness).

Counted once on the training texts, in PARTS parts. A text that the model learns from is shown the
counts of the other parts alone, or it would learn to trust a count that its own annotation is. A
text belongs to a part by its content, so that one that is there twice does not tell of itself.

    mark(alias) = log((marked + 1) / (passed over + 1))        matched = marked + passed over

Source: https://kexue.fm/archives/6919, where aliases with (passed over + 1) / (marked + 1) >= 5 are
deleted.
Differs from it: nothing is deleted, the figure is a feature; and the counts leave out the text's
own part.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlpkit.decoding.trie.arrays import Array, Arrays, Header, Kind, read_arrays, write_arrays
from nlpkit.errors import SettingsError

PARTS = 8
COUNTED = ("matched", "marked", "linked")
FILE = "link_statistics"
OLD_FILE = "habits"  # its name in runs of older versions


def _problem(header: Header, arrays: Arrays) -> str | None:
    for name in COUNTED:
        keys, counts = arrays[f"{name}.keys"], arrays[f"{name}.counts"]
        if counts.shape != (len(keys), PARTS) or (counts < 0).any():
            return f"{name}: counts of the wrong shape, or below 0"
        if (np.diff(keys, prepend=-1) <= 0).any():
            return f"{name}: keys that are not sorted"
    return None


KIND = Kind(
    name="link statistics",
    version=2,
    plain={},
    arrays={
        **{f"{name}.keys": Array(("I64",)) for name in COUNTED},
        **{f"{name}.counts": Array(("I32",), dimensions=2) for name in COUNTED},
    },
    problem=_problem,
    remedy="train again",
)


def part_of(text: str) -> int:
    """The part that a training text belongs to."""
    return zlib.crc32(text.encode("utf-8", "replace")) % PARTS


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of sorted keys by part: `key_N` int64, `count_NF` int32."""

    key_N: np.ndarray
    count_NF: np.ndarray

    @classmethod
    def of(cls, counted: Counter[tuple[int, int]]) -> Counts:
        """From counts of (key, part)."""
        key_N = np.unique(np.array([key for key, _ in counted], np.int64))
        count_NF = np.zeros((len(key_N), PARTS), np.int32)
        for (key, part), count in counted.items():
            count_NF[np.searchsorted(key_N, key), part] = count
        return cls(key_N, count_NF)

    def __call__(self, keys: np.ndarray, without: int | None) -> np.ndarray:
        """The counts of some keys over all parts, or over all but one."""
        if not len(self.key_N) or not len(keys):
            return np.zeros(len(keys), np.int64)
        place = np.searchsorted(self.key_N, keys).clip(max=len(self.key_N) - 1)
        rows = self.count_NF[place]
        total = rows.sum(1) - (0 if without is None else rows[:, without])
        return np.where(self.key_N[place] == keys, total, 0)


@dataclass(frozen=True, eq=False)
class LinkStatistics:
    """Counts by alias of `matched` and `marked`, and by pair of alias and entity of `linked`.

    The pair's key is its place in `EntityBase.entities`.
    """

    matched: Counts
    marked: Counts
    linked: Counts

    def save(self, folder: Path) -> None:
        """Writes one file, FILE."""
        arrays = {}
        for name in COUNTED:
            counts: Counts = getattr(self, name)
            arrays[f"{name}.keys"] = counts.key_N
            arrays[f"{name}.counts"] = counts.count_NF
        write_arrays(folder / FILE, KIND, {}, arrays)

    @classmethod
    def open(cls, folder: Path, aliases: int, pairs: int) -> LinkStatistics:
        """What `save` wrote, for a knowledge base with so many aliases, and pairs of an alias and
        an entity. Raises SettingsError where it is of another one or damaged."""
        if not (folder / FILE).exists() and (folder / OLD_FILE).exists():
            raise SettingsError(
                f'{folder}: made by an older version, which named "{FILE}" "{OLD_FILE}"',
                KIND.remedy,
            )
        _, arrays = read_arrays(folder / FILE, KIND)
        counts = []
        for name, most in zip(COUNTED, (aliases, aliases, pairs), strict=True):
            key_N = arrays[f"{name}.keys"]
            if len(key_N) and key_N[-1] >= most:
                raise SettingsError(f"{folder / FILE}: of another knowledge base", KIND.remedy)
            counts.append(Counts(key_N, arrays[f"{name}.counts"]))
        return cls(*counts)

    def marks(self, aliases: np.ndarray, without: int | None) -> np.ndarray:
        """(log odds of being marked, log(1 + matched)) of aliases: (N, 2)."""
        marked = self.marked(aliases, without)
        passed = self.matched(aliases, without) - marked
        return np.column_stack([np.log((marked + 1) / (passed + 1)), np.log1p(marked + passed)])
