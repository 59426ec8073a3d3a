"""The one window of a question that training meets, drawn anew in every epoch.

A window drawn at random from a long passage answers nothing most of the time, and a model that
learns from such windows learns first of all to answer nothing. So a share of the windows is drawn
to hold an answer; where in the window the answer stands is left to chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nlpkit.tasks._mrc.windows import Example, Window, spans_in
from nlpkit.text.tokenizer import Encoding, Span


def drawer(answering: float | None, most: int) -> Callable[[Example, Any], Example]:
    """What draws a window of `most` tokens, with a `numpy` generator; `answering` as in the
    settings."""

    def draw(example: Example, random: Any) -> Example:
        if answering is None:
            window = example.windows[random.integers(len(example.windows))]
            return replace(example, windows=[window])
        answers = _answers(example)
        if answers and random.random() < answering:
            number, span = answers[random.integers(len(answers))]
        else:
            number, span = int(random.integers(len(example.passages))), None
        piece = _piece(example.passages[number], min(most, example.window_size), span, random)
        window = Window(number, piece, spans_in(piece, example.places[number]))
        return replace(example, windows=[window])

    return draw


def _answers(example: Example) -> list[tuple[int, Span]]:
    """(passage, tokens of its encoding) of the answers that can be given, or of the cut ones."""
    whole: list[tuple[int, Span]] = []
    cut: list[tuple[int, Span]] = []
    for number, places in enumerate(example.places):
        for place in places:
            span = example.passages[number].token_span(place.span)
            if span is not None:
                (cut if place.is_cut else whole).append((number, span))
    return whole or cut


def _piece(passage: Encoding, size: int, span: Span | None, random: Any) -> Encoding:
    """`size` tokens of a passage from a random start, which hold the tokens of `span`."""
    end = len(passage) - 1  # where [SEP] stands
    last_start = max(1, end - size)
    first_start = 1
    if span is not None:
        first_start = min(max(1, span[1] - size), last_start)
        last_start = max(first_start, min(span[0], last_start))
    start = int(random.integers(first_start, last_start + 1))
    return passage.slice(start, min(start + size, end))
