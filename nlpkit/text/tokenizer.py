"""Text to tokens with offsets, tokens to batches, spans of characters to spans of tokens and back.

Units: characters are code points of the text as given, tokens are counted with [CLS] at 0. Spans
are half-open.

All characters that a vocabulary lacks are the one token [UNK]. Equal token ids therefore say that
two strings are equal only where neither has an unknown character: ask `Tokenizer.unknown`.
Legend: B batch, T tokens (padded on the right).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import tokenizers
import torch

from nlpkit.text.backend import special_id
from nlpkit.text.batch import TensorFields
from nlpkit.text.marks import cover_marks

Span = tuple[int, int]

LENGTH_STEP = 8
LONG_STEP = 16
LONG = 128
"""Widths of batches, in tokens: multiples of LENGTH_STEP, of LONG_STEP above LONG, so that kernels
compiled for a shape are found again; see `padded_length`."""


class WordFeatures(Protocol):
    """What an encoder wants to know of the words around each character (see
    `nlpkit.text.words`)."""

    def __call__(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """(word ids, tag ids), one for each character of `text`; 0 means none."""
        ...


@dataclass(frozen=True)
class Encoding:
    """One text as tokens: [CLS] tokens [SEP]. Starts and ends are characters; the two special
    tokens are empty."""

    text: str
    token_ids_T: np.ndarray
    starts_T: np.ndarray
    ends_T: np.ndarray
    word_ids_T: np.ndarray | None = None
    tag_ids_T: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.token_ids_T)

    @property
    def is_part(self) -> bool:
        """Whether this is a window of the text rather than the whole."""
        return len(self) > 2 and (self.starts_T[1] > 0 or self.ends_T[-2] < len(self.text.rstrip()))

    def token_span(self, span: Span) -> Span | None:
        """The tokens that cover exactly these characters, or None where an edge falls inside a
        token or on none."""
        start, end = span
        first = int(np.searchsorted(self.starts_T[1:-1], start, "left")) + 1
        last = int(np.searchsorted(self.ends_T[1:-1], end, "right"))
        aligned = (
            1 <= first <= last < len(self) - 1
            and self.starts_T[first] == start
            and self.ends_T[last] == end
        )
        return (first, last + 1) if aligned and start < end else None

    def find(self, string: str) -> list[Span]:
        """The token spans of all occurrences of a string that are made of whole tokens of this
        encoding."""
        spans = (self.token_span(span) for span in occurrences(self.text, string))
        return [span for span in spans if span]

    def char_span(self, token_span: Span) -> Span:
        """The characters that these tokens cover."""
        first, end = token_span
        return int(self.starts_T[first]), int(self.ends_T[end - 1])

    @cached_property
    def _boundaries(self) -> np.ndarray:
        """Tokens before which the text may be cut: those that do not share a character with the one
        before."""
        return np.flatnonzero(self.starts_T[1:-1] >= np.concatenate([[0], self.ends_T[1:-2]])) + 1

    def slice(self, first: int, end: int) -> Encoding:
        """The tokens `first..end` between [CLS] and [SEP]; offsets stay those of the whole text."""
        keep = np.r_[0, first:end, len(self) - 1]
        rows: dict[str, Any] = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name.endswith("_T")
        }
        return replace(self, **{name: row[keep] for name, row in rows.items() if row is not None})

    def followed_by(self, other: Encoding) -> Encoding:
        """[CLS] tokens [SEP] tokens of the other [SEP]; starts and ends are those of each in its
        own text, and `text` is that of the other."""
        rows: dict[str, Any] = {}
        for field in fields(self):
            own = getattr(self, field.name)
            if field.name.endswith("_T") and own is not None:
                rows[field.name] = np.concatenate([own, getattr(other, field.name)[1:]])
        return replace(other, **rows)

    def windows(self, max_length: int, overlap: float = 0.25) -> list[Encoding]:
        """Slices of at most `max_length` tokens that cover the text; neighbours share `overlap` of
        their length."""
        if len(self) <= max_length:
            return [self]
        inner, windows, first = max_length - 2, [], 1
        while True:
            end = min(first + inner, len(self) - 1)
            windows.append(self.slice(first, end))
            if end == len(self) - 1:
                return windows
            wish = end - int(inner * overlap)
            cuts = self._boundaries[(self._boundaries > first) & (self._boundaries <= wish)]
            first = int(cuts[-1]) if len(cuts) else wish


@dataclass(frozen=True)
class TokenBatch(TensorFields):
    """Encodings as tensors. `mask_BT` is true on tokens, `content_BT` on tokens of the text, not on
    [CLS] [SEP]."""

    token_ids_BT: torch.Tensor
    segment_ids_BT: torch.Tensor
    mask_BT: torch.Tensor
    content_BT: torch.Tensor
    word_ids_BT: torch.Tensor | None = None
    tag_ids_BT: torch.Tensor | None = None

    def rows(self, row_R: torch.Tensor) -> TokenBatch:
        """These rows, in this order; a row may come several times."""
        return replace(
            self, **{name: part[row_R] for name, part in vars(self).items() if part is not None}
        )

    def widened(self, most: int) -> TokenBatch:
        """Padded with 0 to a multiple of LONG_STEP, up to `most` tokens: sums over what comes
        behind go by steps of so many places."""
        width = self.token_ids_BT.shape[1]
        more = max(0, min(most - width, -width % LONG_STEP))
        parts = {name: part for name, part in vars(self).items() if part is not None}
        padded = {name: torch.nn.functional.pad(part, (0, more)) for name, part in parts.items()}
        return replace(self, **padded)


class Tokenizer:
    """A `tokenizers` tokenizer together with the word features and the longest input of the encoder
    it serves.

    Raises SettingsError where the vocabulary lacks [CLS], [SEP], [PAD] or [UNK].
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        words: WordFeatures | None = None,
        max_length: int | None = None,
    ):
        self.backend = backend
        self.words = words
        self.max_length = max_length
        self.cls_id = special_id(backend, "[CLS]")
        self.sep_id = special_id(backend, "[SEP]")
        self.pad_id = special_id(backend, "[PAD]")
        self.unk_id = special_id(backend, "[UNK]")

    def encode(self, text: str) -> Encoding:
        """[CLS] text [SEP], uncut."""
        encoded = self.backend.encode(text, add_special_tokens=False)
        offsets = np.array(encoded.offsets, dtype=np.int32).reshape(-1, 2)
        cover_marks(offsets, text)
        starts = np.concatenate([[0], offsets[:, 0], [len(text)]]).astype(np.int32)
        ends = np.concatenate([[0], offsets[:, 1], [len(text)]]).astype(np.int32)
        token_ids = np.array([self.cls_id, *encoded.ids, self.sep_id], dtype=np.int32)
        if self.words is None:
            return Encoding(text, token_ids, starts, ends)
        of_tokens = [np.pad(ids[offsets[:, 0]], 1) for ids in self.words(text)]
        return Encoding(text, token_ids, starts, ends, *of_tokens)

    def token_ids(self, string: str) -> tuple[int, ...]:
        """The tokens of a string, without [CLS] and [SEP].

        Two strings with the same tokens may differ in letter case and width, and in their unknown
        characters, which are all `unk_id`.
        """
        return tuple(self.backend.encode(string, add_special_tokens=False).ids)

    def unknown_spans(self, text: str) -> list[Span]:
        """The spans of the text, in characters and in order, that are read as [UNK] tokens.

        A span is one character where the vocabulary is one of characters; a vocabulary of word
        pieces makes [UNK] of a whole word.
        """
        encoded = self.backend.encode(text, add_special_tokens=False)
        pairs = zip(encoded.ids, encoded.offsets, strict=True)
        return [span for token_id, span in pairs if token_id == self.unk_id]

    def unknown(self, text: str) -> list[str]:
        """The strings of the text that are read as [UNK], each once, in order of appearance.

        Where this is empty, the text can be told from others by its tokens. Where it is not, the
        text itself has to be compared, or refused.
        """
        return list(dict.fromkeys(text[start:end] for start, end in self.unknown_spans(text)))

    def windows(self, encoding: Encoding, max_length: int) -> list[Encoding]:
        """The encoding cut to windows of `max_length` tokens, or of what the encoder takes where
        that is less."""
        return encoding.windows(min(max_length, self.max_length or max_length))

    def collate(self, encodings: Sequence[Encoding]) -> TokenBatch:
        """Encodings padded to the longest of them, rounded up (see LENGTH_STEP) where the encoder
        takes so much."""
        lengths = torch.tensor([len(encoding) for encoding in encodings])
        width = slice(None, max(self.max_length, int(lengths.max())) if self.max_length else None)
        token_ids_BT = pad([e.token_ids_T for e in encodings], self.pad_id)[:, width]
        position_T = torch.arange(token_ids_BT.shape[1])
        mask_BT = position_T < lengths[:, None]
        with_words = self.words is not None
        return TokenBatch(
            token_ids_BT=token_ids_BT,
            segment_ids_BT=torch.zeros_like(token_ids_BT),
            mask_BT=mask_BT,
            content_BT=(position_T > 0) & (position_T < lengths[:, None] - 1),
            word_ids_BT=pad([e.word_ids_T for e in encodings])[:, width] if with_words else None,
            tag_ids_BT=pad([e.tag_ids_T for e in encodings])[:, width] if with_words else None,
        )


def keep_whole(
    windows: Sequence[Encoding], found: Sequence[Sequence[Any]], spans: Any
) -> list[Any]:
    """What was found in the windows of a text, without what touches an edge at which the window was
    cut.

    Such a thing may go on beyond the edge; the neighbour, which overlaps, has seen it whole.
    `spans(thing)` gives its spans in characters.
    """
    kept = []
    for index, (window, things) in enumerate(zip(windows, found, strict=False)):
        first = int(window.starts_T[1]) if index > 0 else -1
        last = int(window.ends_T[-2]) if index < len(windows) - 1 else -1
        kept += [
            t for t in things if all(start != first and end != last for start, end in spans(t))
        ]
    return kept


def padded_length(longest: int) -> int:
    """The width of a batch whose longest row has so many tokens.

    How far a row is padded must not move its results, not by a bit. Zeros at the end of a sum do
    not, but the matrix libraries of a CPU take other kernels where a sum has 8 terms, or 8 left
    over behind a block of 192 (fp32, MKL). No width is 8, and none above LONG leaves 8 over.
    """
    step = LENGTH_STEP if longest <= LONG else LONG_STEP
    return max(LONG_STEP, -(-longest // step) * step)


def pad(rows: Sequence[Any], value: int = 0) -> torch.Tensor:
    """int64 (rows, `padded_length` of the longest row), filled on the right with `value`."""
    length = padded_length(max(map(len, rows)))
    padded = np.full((len(rows), length), value, dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return torch.from_numpy(padded)


def occurrences(text: str, string: str) -> list[Span]:
    """All occurrences of a string in a text, overlapping ones too; none of an empty string."""
    spans, start = [], text.find(string) if string else -1
    while start >= 0:
        spans.append((start, start + len(string)))
        start = text.find(string, start + 1)
    return spans
