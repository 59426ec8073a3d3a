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


@dataclass(frozen=True)
class Window:
    """A piece of passage number `passage`, and what it has to answer: token ids, none for
    nothing."""

    passage: int
    encoding: Encoding
    target: tuple[int, ...] = ()

    @property
    def token_ids(self) -> list[int]:
        """Without [CLS] and [SEP]."""
        return self.encoding.token_ids_T[1:-1].tolist()

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

    question: tuple[int, ...]
    windows: list[Window]
    gold: Prediction | None
    beside: int
    """Tokens that a row has beside those of its window."""
    lost: str = ""
    """Why no answer can be learnt, where gold has one."""

    def __len__(self) -> int:
        return sum(len(window.encoding) - 2 + self.beside for window in self.windows)


def groups(examples: Sequence[Example]) -> torch.Tensor:
    """The example of every window, one window after another: (R,)."""
    return torch.arange(len(examples)).repeat_interleave(
        torch.tensor([len(e.windows) for e in examples])
    )


def mean_by_group(loss_R: torch.Tensor, group_R: torch.Tensor) -> torch.Tensor:
    """The mean over the windows of every example: (B,)."""
    count_B = group_R.bincount()
    return loss_R.new_zeros(len(count_B)).index_add(0, group_R, loss_R) / count_B


def target_of(window: Encoding, places: Sequence[tuple[Span, bool]]) -> tuple[int, ...]:
    """The tokens of the first place that the window holds."""
    span = next(filter(None, (window.token_span(place) for place, _ in places)), None)
    return tuple(window.token_ids_T[span[0] : span[1]].tolist()) if span else ()


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
