"""Which stretch of the corpus a place in the training order is: a pure function, without a list of
stretches.

A source is cut into blocks of one length, in every pass at another phase, and the blocks of a pass
over all sources are put into an order that looks random, n -> (a n + b) mod N with a coprime to N:
nothing is kept, so that memory does not grow with the corpus, and a training continues at any place
of the order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nlpkit.errors import SettingsError


class Blocks:
    """The endless sequence of blocks of `length` tokens.

    Args:
        sizes: tokens of every source.
        weights: how often a pass takes each block of a source.
        length: tokens of a block.
        seed: of the order and the phases.

    Raises SettingsError where no source has a block.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], length: int, seed: int):
        self.length = length
        self.seed = seed
        # one less than fit, for the phase
        self.counts = [max(0, size // length - 1) for size in sizes]
        self.shares = [
            max(1, round(weight * count)) if count else 0
            for weight, count in zip(weights, self.counts, strict=True)
        ]
        self.ends = np.cumsum(self.shares)
        self.per_pass = int(self.ends[-1])
        if self.per_pass == 0:
            raise SettingsError(f"too little text: {max(sizes)} tokens, blocks have {length}")

    def __getitem__(self, place: int) -> tuple[int, int]:
        """(source, first token in it) of a place of the order."""
        number, within = divmod(place, self.per_pass)
        chosen = _shuffled(within, self.per_pass, (self.seed, 0, number))
        source = int(np.searchsorted(self.ends, chosen, "right"))
        # The blocks of a source are gone through in passes of their own: with weight 0.2 every
        # fifth pass is a new one.
        first = int(self.ends[source - 1]) if source else 0
        taken = number * self.shares[source] + chosen - first
        round_, index = divmod(taken, self.counts[source])
        key = (self.seed, 1 + source, round_)
        phase = int(np.random.default_rng(key).integers(self.length))
        return source, phase + self.length * _shuffled(index, self.counts[source], key)


def _shuffled(index: int, count: int, key: tuple[int, ...]) -> int:
    """Where `index` goes in a permutation of `count` numbers, which `key` picks."""
    random = np.random.default_rng(key)
    factor = int(random.integers(count)) | 1
    shift = int(random.integers(count))
    while math.gcd(factor, count) != 1:
        factor += 2
    return (factor * index + shift) % count
