"""The settings that all ways of reading comprehension have."""

from __future__ import annotations

from dataclasses import dataclass

from nlpkit.config import Share, Size


@dataclass(frozen=True)
class ReadingSettings:
    """Settings of reading, sections `mrc_mlm`, `mrc_seq2seq` and `mrc_span`."""

    max_passage: Size = 384
    """Longer passages are read in overlapping windows of so many tokens (fewer where the encoder
    takes fewer)."""
    train_passage: Size = 256
    """Most tokens of a window drawn for training."""
    max_question: Size = 128
    """Tokens; a longer question is an error."""
    max_answer: Size | None = None
    """Tokens; of a longer answer only so many can be given. None: 32, or 64 where more than a
    twentieth of the training data's answers have over 32 characters."""
    no_answer: bool | None = None
    """Whether the answer to a question may be that there is none; none: if it is so in the training
    data."""
    answering: Share | None = 0.8
    """Share of the training windows that hold the answer, for questions that have one. None: as
    many as windows drawn at random hold, which is the published way."""
    match_features: bool | None = None
    """Whether a token's vector says if the token occurs in the other text: of the question, in the
    passage; of the passage, in the question. None: in a new run, yes."""

    def __post_init__(self) -> None:
        longest = self.max_answer or SHORT
        for name in ("max_passage", "train_passage"):
            if getattr(self, name) < 2 * longest:
                least = f"at least twice max_answer ({longest})"
                raise ValueError(f"{name}: expected {least} for windows to hold an answer")


@dataclass(frozen=True)
class WritingSettings(ReadingSettings):
    """Settings of answers that are told by their tokens, sections `mrc_mlm` and `mrc_seq2seq`."""

    copies: bool = False
    """Whether a token of the answer can be pointed at in the passage as well as taken from the
    vocabulary."""


SHORT = 32
LONG = 64
"""Tokens of the longest answer, where the settings leave it to the data."""
LONG_SHARE = 0.05
"""Of the answers that may be longer than SHORT."""
