"""The field `text` of a record, and examples that are one text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from nlpkit.errors import RecordError
from nlpkit.text.tokenizer import Tokenizer

E = TypeVar("E")


def read_text(record: dict[str, Any]) -> str:
    """The field `text`. Raises RecordError where it is missing or no string."""
    text = record.get("text")
    if text is None:
        raise RecordError('missing field "text"')
    if not isinstance(text, str):
        raise RecordError(f"text: expected a string, got {type(text).__name__}")
    return text


def text_windows(tokenizer: Tokenizer, example: E, max_length: int) -> list[E]:
    """The example in overlapping windows of at most `max_length` tokens, [CLS] and [SEP] included.

    Takes a dataclass with a field `encoding`. A short example is its own only window.
    """
    kept: Any = example
    pieces = tokenizer.windows(kept.encoding, max_length)
    if len(pieces) == 1:
        return [example]
    return [replace(kept, encoding=piece) for piece in pieces]
