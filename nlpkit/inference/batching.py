"""Batches of examples of nearly equal length, so that little is spent on padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def split(
    indices: Sequence[int], lengths: Sequence[int] | np.ndarray, max_tokens: int, parts: int = 1
) -> Iterator[list[int]]:
    """Cuts a batch, by length, into pieces of at most `max_tokens` tokens with padding, and into at
    least `parts`. The shortest examples come first.

    `lengths` has the tokens of every example there is: shape (examples,); `indices` number some.
    A single example longer than `max_tokens` makes a piece of its own.
    """
    ordered = sorted(indices, key=lambda index: lengths[index])
    most = -(-len(ordered) // parts)
    piece: list[int] = []
    for index in ordered:
        if piece and (len(piece) == most or (len(piece) + 1) * lengths[index] > max_tokens):
            yield piece
            piece = []
        piece.append(index)
    if piece:
        yield piece
