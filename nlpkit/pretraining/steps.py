"""What each step of a pretraining learns, and which blocks it takes: pure functions of its number.

Steps of spans come at even distances, and so do those with long blocks among the others: how many
there were before a step is known without counting.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nlpkit.pretraining.objectives import Kind
from nlpkit.pretraining.settings import PretrainConfig

KIND = 1  # of the generators from one seed


class Steps:
    """The steps of a pretraining, counted from 0, of an encoder."""

    def __init__(self, config: PretrainConfig, encoder: Any):
        self.config = config
        self.encoder = encoder
        self.long_share = config.long_share if encoder.max_length else 0.0

    def kind_of(self, step: int) -> tuple[bool, Kind]:
        """(whether the blocks of a step are long, what it learns). Steps of spans have long
        ones."""
        if self._spans_before(step + 1) > self._spans_before(step):
            return True, "spans"
        is_long = self.long_before(step + 1) > self.long_before(step)
        if self.encoder.objective == "next":
            return is_long, "both" if self.encoder.directions == 2 else "next"
        # the shares are of all steps: the dice of those that are left need not reach to 1
        dice = np.random.default_rng((self.config.seed, KIND, step)).random()
        dice *= 1 - self.config.span_share
        if dice < self.config.prefix_share:
            return is_long, "prefix"
        if dice < self.config.prefix_share + self.config.replaced_share:
            return is_long, "replaced"
        return is_long, "masked"

    def before(self, step: int, is_long: bool) -> int:
        """How many of the steps before this one had long blocks, or had not."""
        long = self.long_before(step)
        return long if is_long else step - long

    def long_before(self, step: int) -> int:
        """How many of the steps before this one had long blocks, those of spans included."""
        spans = self._spans_before(step)
        return spans + math.floor((step - spans) * self.long_share)

    def _spans_before(self, step: int) -> int:
        return math.floor(step * self.config.span_share)
