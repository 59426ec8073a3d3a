"""A loss in which frequent sequences lose their lead: nothing is learned of how often the training
data has them.

Of a sequence that has to be predicted the loss is that of the softmax of

    logit(v) + strength * log(1 + count(prefix v))    count of the training sequences that begin so

and predictions are made without the second term. With strength 1 the logits then hold what the
input says of v, over what the training data says without it: log of the counts is log p_train(v |
prefix), one added to every count, up to what is equal for all v.

Source: Menon et al. 2020, Long-tail learning via logit adjustment, arxiv.org/abs/2007.07314
(equation 10), there for single labels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

Adjustment = tuple[int, int, float]
"""Place, token, and what is added to its logit there."""


class LogitAdjustment:
    """`counted` are the training sequences, each with how often it occurs; `strength` 0 adjusts
    nothing."""

    def __init__(self, counted: Iterable[tuple[Sequence[int], int]], strength: float):
        after: dict[tuple[int, ...], Counter[int]] = {}
        for sequence, count in counted if strength else ():
            for place, token in enumerate(sequence):
                after.setdefault(tuple(sequence[:place]), Counter())[token] += count
        self._added = {}
        for prefix, counts in after.items():
            added = [(token, strength * math.log1p(count)) for token, count in counts.items()]
            self._added[prefix] = added

    def adjustments(self, tokens: Sequence[int], start: int, end: int) -> Iterator[Adjustment]:
        """Of the sequence `tokens[start:end]`; places are those in `tokens`."""
        for place in range(start, end):
            for token, added in self._added.get(tuple(tokens[start:place]), ()):
                yield place, token, added
