"""Which examples go into which step: a pure function of (seed, step), so that a resumed run sees
the same batches.

Every epoch is shuffled, cut into pools, each pool sorted by length and cut into batches, and the
batches shuffled: the examples of a batch have nearly the same length and little is spent on
padding. The batches of a pool are equal either in examples or in tokens; their number is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from nlpkit.inference.batching import split

# batches that are sorted together: more means less padding, fewer means batches nearer to random
POOL = 50


class Batches:
    """The batches of all epochs as lists of indices into the examples.

    Args:
        lengths: tokens of every example.
        batch_size: examples of a step; by tokens, the mean of them.
        seed: of the shuffling.
        by_tokens: whether the batches of a pool have equal tokens (many short examples, few long
            ones).
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, by_tokens: bool = False):
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.by_tokens = by_tokens
        self.per_epoch = -(-len(lengths) // batch_size)
        self._epoch = lru_cache(maxsize=1)(self._shuffled)

    def __getitem__(self, step: int) -> np.ndarray:
        """Indices of step `step`, counted from 0; the epoch follows from it."""
        return self._epoch(step // self.per_epoch)[step % self.per_epoch]

    def _shuffled(self, epoch: int) -> list[np.ndarray]:
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(len(self.lengths))
        batches = []
        for start in range(0, len(order), POOL * self.batch_size):
            pool = order[start : start + POOL * self.batch_size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += np.split(pool, self._cuts(pool))
        return [batches[index] for index in random.permutation(len(batches))]

    def _cuts(self, pool: np.ndarray) -> list[int]:
        """Where the sorted pool is cut: between every two batches one place, none of them empty."""
        cuts = list(range(self.batch_size, len(pool), self.batch_size))
        if not self.by_tokens:
            return cuts
        tokens = np.cumsum(self.lengths[pool])
        shares = np.arange(1, len(cuts) + 1) / (len(cuts) + 1) * tokens[-1]
        ends = np.searchsorted(tokens, shares) + 1
        for number in range(len(cuts)):
            least = ends[number - 1] + 1 if number else 1
            ends[number] = min(max(ends[number], least), len(pool) - len(cuts) + number)
        return ends.tolist()


def own_part(batches: Batches, step: int, accelerator: Any) -> list[int]:
    """The indices of a step's batch that are this process's, by length."""
    ordered = sorted(batches[step].tolist(), key=lambda index: batches.lengths[index])
    return ordered[accelerator.process_index :: accelerator.num_processes]


def cut(lengths: Sequence[int], config: Any, device: Any) -> Iterator[list[int]]:
    """The places of `lengths`, of examples, micro-batch by micro-batch, as `train.max_tokens` and
    `train.accumulate` want them; `config` is the `TrainConfig`."""
    most = config.max_tokens or (16384 if device.type == "cuda" else 2048)
    yield from split(range(len(lengths)), lengths, most, config.accumulate)
