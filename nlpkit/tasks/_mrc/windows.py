"""Questions with the windows of their passages: what tasks of reading comprehension batch and
decode.

Legend: R rows (windows of all examples), B examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nlpkit.tasks._mrc.answers import Answer, Prediction, normalise
from nlpkit.text.tokenizer import Encoding, Span

OVERLAP = 0.25  # of a window, shared with the next, where no answer is longer


@dataclass(frozen=True)
class Place:
    """Where an accepted answer stands in a passage, in characters."""

    span: Span
    is_cut: bool
    """Whether the answer is longer than the longest that can be given; the span is then cut to
    it."""


@dataclass(frozen=True)
class Window:
    """A piece of passage number `passage`, and where in it the answers stand."""

    passage: int
    encoding: Encoding
    spans: tuple[Span, ...] = ()
    """Of `token_ids`, the one to learn first; none where the window does not answer."""

    @property
    def token_ids(self) -> list[int]:
        """Without [CLS] and [SEP]."""
        return self.encoding.token_ids_T[1:-1].tolist()

    @property
    def target(self) -> tuple[int, ...]:
        """The token ids to answer with, none for nothing."""
        return tuple(self.token_ids[slice(*self.spans[0])]) if self.spans else ()

    def char_span(self, token_span: Span) -> Span:
        """The characters of some of `token_ids`, in the passage."""
        return self.encoding.char_span((token_span[0] + 1, token_span[1] + 1))

    def text(self, token_span: Span) -> str:
        """The text of some of `token_ids`."""
        start, end = self.char_span(token_span)
        return self.encoding.text[start:end]

    def answer(self, token_span: Span, score: float) -> Answer:
        """The answer that stands at some of `token_ids`."""
        span = self.char_span(token_span)
        return Answer(self.text(token_span), self.passage, span, float(f"{score:.4g}"))


@dataclass(frozen=True)
class Example:
    """A question with all windows of its passages; at least one, which may be empty."""

    question: Encoding
    passages: list[Encoding]
    places: list[list[Place]]
    """Of every passage, in the order of the accepted answers, cut ones last."""
    windows: list[Window]
    gold: Prediction | None
    beside: int
    """Tokens that a row has beside those of its window."""
    window_size: int
    """Most tokens of a window."""
    lost: str = ""
    """Why no answer can be learnt, where gold has one."""

    def __len__(self) -> int:
        return sum(len(window.encoding) - 2 + self.beside for window in self.windows)

    @property
    def question_ids(self) -> list[int]:
        """Without [CLS] and [SEP]."""
        return self.question.token_ids_T[1:-1].tolist()


def windows_of(
    passages: Sequence[Encoding],
    places: Sequence[Sequence[Place]],
    size: int,
    longest_answer: int,
) -> list[Window]:
    """The windows of all passages, of `size` tokens each, with what they answer.

    Neighbours share at least the longest answer, so that every answer is whole in one.
    """
    overlap = max(OVERLAP, (longest_answer + 0.5) / size)
    windows = []
    for number, passage in enumerate(passages):
        for piece in passage.windows(size + 2, overlap):
            windows.append(Window(number, piece, spans_in(piece, places[number])))
    return windows


def spans_in(piece: Encoding, places: Sequence[Place]) -> tuple[Span, ...]:
    """The places that a window holds, as spans of its `token_ids`.

    An answer is a string: where it stands several times, every place is as right. Cut answers count
    only where the window holds no whole one.
    """
    whole: list[Span] = []
    cut: list[Span] = []
    for place in places:
        span = piece.token_span(place.span)
        if span is not None:
            (cut if place.is_cut else whole).append((span[0] - 1, span[1] - 1))
    return tuple(dict.fromkeys(whole or cut))


def groups(examples: Sequence[Example]) -> torch.Tensor:
    """The example of every window, one window after another: (R,)."""
    return torch.arange(len(examples)).repeat_interleave(
        torch.tensor([len(e.windows) for e in examples])
    )


def mean_by_group(loss_R: torch.Tensor, group_R: torch.Tensor) -> torch.Tensor:
    """The mean over the windows of every example: (B,)."""
    count_B = group_R.bincount()
    return loss_R.new_zeros(len(count_B)).index_add(0, group_R, loss_R) / count_B


def is_told_apart(
    token_ids: Sequence[int], text: str, windows: Sequence[Window], unk_id: int
) -> bool:
    """Whether an answer is the only text that these tokens are in the windows.

    All unknown characters are one token, so tokens with `unk_id` may stand for other texts too; a
    model that writes or scores tokens cannot have meant one of them.
    """
    if unk_id not in token_ids:
        return True
    wanted = normalise(text)
    length = len(token_ids)
    for window in windows:
        own = window.token_ids
        for start in range(len(own) - length + 1):
            is_here = own[start : start + length] == list(token_ids)
            if is_here and normalise(window.text((start, start + length))) != wanted:
                return False
    return True
