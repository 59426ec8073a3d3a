"""What `decoding.py` measures of passages: a step in which only pieces of a passage may be written.

    ours      `PassageConstraint`: a set of active places for every beam
    n-grams   in every step the n-grams of every passage as a dict, prefix -> next tokens (https://kexue.fm/archives/7115),
              asked by transformers' PrefixConstrainedLogitsProcessor

Every row has a passage of 512 of the characters; one beam follows a piece of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nlpkit.decoding.passage import PassageConstraint

PLACES, STEPS = 512, 6


def moments_of(
    constraint: PassageConstraint,
    passages: np.ndarray,
    beams: int,
    eos: int,
    vocabulary: int,
    moment_of: Callable,
) -> list[Any]:
    """STEPS moments of a search, each with the constraint's states in place of a trie's."""
    generator, rows = torch.Generator().manual_seed(len(passages)), len(passages)
    starts = torch.randint(PLACES - STEPS, (rows,), generator=generator).tolist()
    state, score_BK = constraint.start(rows), torch.zeros(rows, 1)
    input_ids = torch.zeros(rows * beams, 1, dtype=torch.int64)
    moments = []
    for step in range(STEPS):
        logits = torch.randn(rows, state.shape[1], vocabulary, generator=generator) * 2
        for row, start in enumerate(starts):
            logits[row, :, int(passages[row, start + step])] += 11
        moments.append(moment_of(logits, score_BK, state, input_ids))
        found = constraint.step(logits, score_BK, state, 2 * beams)
        score_BK, chosen_BK = found.score_BC.masked_fill(found.token_BC == eos, float("-inf")).topk(
            beams
        )
        state = constraint.follow(state, found, chosen_BK)
        row_BK = torch.arange(rows)[:, None] * beams + found.beam_BC.gather(1, chosen_BK)
        input_ids = torch.cat(
            [input_ids[row_BK.flatten()], found.token_BC.gather(1, chosen_BK).reshape(-1, 1)], 1
        )
    return moments


class NGrams:
    """What transformers asks for: the next tokens of a prefix, from the n-grams of the row's
    passage.

    As published, those of a step are made in it: `clear` forgets them.
    """

    def __init__(self, passages: np.ndarray, eos: int):
        self.passages, self.eos = passages.tolist(), eos
        self.after: dict[int, dict[tuple[int, ...], set[int]]] = {}

    def clear(self) -> None:
        """To be called before each step."""
        self.after.clear()

    def __call__(self, row: int, input_ids: torch.Tensor) -> list[int]:
        prefix = tuple(input_ids.tolist()[1:])
        if row not in self.after:
            self.after[row] = self._grams(self.passages[row], len(prefix))
        return [*self.after[row].get(prefix, ()), *([self.eos] if prefix else [])]

    def _grams(self, passage: list[int], length: int) -> dict[tuple[int, ...], set[int]]:
        after: dict[tuple[int, ...], set[int]] = {}
        for start in range(PLACES - length):
            after.setdefault(tuple(passage[start : start + length]), set()).add(
                passage[start + length]
            )
        return after
