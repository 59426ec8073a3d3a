"""The field `text` of a record."""

from __future__ import annotations

from typing import Any

from nlpkit.errors import RecordError


def read_text(record: dict[str, Any]) -> str:
    """The field `text`. Raises RecordError where it is missing or no string."""
    text = record.get("text")
    if text is None:
        raise RecordError('missing field "text"')
    if not isinstance(text, str):
        raise RecordError(f"text: expected a string, got {type(text).__name__}")
    return text
