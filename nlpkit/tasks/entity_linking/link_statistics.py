"""Annotation habits: which aliases people mark as mentions where they occur, and whom they mean by
them.

Counted once on the training texts, in FOLDS parts; a text that the model learns from is shown the
counts of the other parts alone, or it would learn to trust a habit that its own annotation is. A
text belongs to a part by its content, so that one that is there twice does not tell of itself.

    mark(alias) = log((marked + 1) / (passed over + 1))        matched = marked + passed over

Source: https://kexue.fm/archives/6919, where aliases with (passed over + 1) / (marked + 1) >= 5 are
deleted.
Differs from it: nothing is deleted, the figure is a feature; and the counts are out of fold.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlpkit.decoding.trie.file import read_arrays, write_arrays

FOLDS = 8
KIND = "annotation habits"


def fold_of(text: str) -> int:
    """The part that a training text belongs to."""
    return zlib.crc32(text.encode("utf-8", "replace")) % FOLDS


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of sorted keys by part: `key_N` int64, `count_NF` int32."""

    key_N: np.ndarray
    count_NF: np.ndarray

    @classmethod
    def of(cls, counted: Counter[tuple[int, int]]) -> Counts:
        """From counts of (key, part)."""
        key_N = np.unique(np.array([key for key, _ in counted], np.int64))
        count_NF = np.zeros((len(key_N), FOLDS), np.int32)
        for (key, fold), count in counted.items():
            count_NF[np.searchsorted(key_N, key), fold] = count
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
class Habits:
    """Counts by alias of `matched` and `marked`, and by pair of alias and entity of `linked`.

    The pair's key is its place in `EntityBase.entities`.
    """

    matched: Counts
    marked: Counts
    linked: Counts

    def save(self, path: Path) -> None:
        """Writes one file."""
        parts = {"matched": self.matched, "marked": self.marked, "linked": self.linked}
        arrays = {f"{name}.keys": counts.key_N for name, counts in parts.items()}
        arrays |= {f"{name}.counts": counts.count_NF for name, counts in parts.items()}
        write_arrays(path, KIND, {}, arrays)

    @classmethod
    def open(cls, path: Path) -> Habits:
        """What `save` wrote. Raises SettingsError."""
        _, arrays = read_arrays(path, KIND)
        return cls(
            *(
                Counts(arrays[f"{n}.keys"], arrays[f"{n}.counts"])
                for n in ("matched", "marked", "linked")
            )
        )

    def marks(self, aliases: np.ndarray, without: int | None) -> np.ndarray:
        """(log odds of being marked, log(1 + matched)) of aliases: (N, 2)."""
        marked = self.marked(aliases, without)
        passed = self.matched(aliases, without) - marked
        return np.column_stack([np.log((marked + 1) / (passed + 1)), np.log1p(marked + passed)])
