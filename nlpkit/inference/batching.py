"""Batches of examples of nearly equal length, so that little is spent on padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from nlpkit.text.tokenizer import padded_length

BATCH_COST = 64
"""Tokens that could be encoded in the time that a batch takes whatever is in it."""


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


def cheapest(
    lengths: Sequence[int],
    most: int,
    max_tokens: int,
    rows_of: Callable[[int], int] | None = None,
) -> list[list[int]]:
    """The places of `lengths` cut, by length, into the pieces that take the least time.

    A piece of n examples takes n times its width, the padded length of its longest, plus
    BATCH_COST. It has at most `most` examples and `max_tokens` tokens with padding; an example that
    is longer makes a piece of its own. With `rows_of` it has at most so many examples for its
    width; a greater width must not have more, and each has 1. The shortest come first.
    """
    ordered = sorted(range(len(lengths)), key=lambda place: lengths[place])
    widths = [padded_length(lengths[place]) for place in ordered]
    least = np.zeros(len(ordered) + 1)  # time of the first n
    first = [0] * (len(ordered) + 1)  # where the last piece of the first n begins
    place = np.arange(len(ordered) + 1)
    for end, width in enumerate(widths, 1):
        fitting = min(most, max(1, max_tokens // width), end)
        if rows_of is not None:
            fitting = min(fitting, rows_of(width))
        begin = end - fitting
        # that of what is before the last piece, less that of its rows if there were no others
        times = least[begin:end] - width * place[begin:end]
        best = int(times.argmin())
        least[end] = times[best] + width * end + BATCH_COST
        first[end] = begin + best
    pieces = []
    end = len(ordered)
    while end:
        pieces.append(ordered[first[end] : end])
        end = first[end]
    return pieces[::-1]
