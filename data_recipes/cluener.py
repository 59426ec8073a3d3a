"""CLUENER2020 to `ner`: texts with named entities of ten kinds.

    in   {"text": "许蓁到云泽，许蓁笑了", "label": {"name": {"许蓁": [[0, 1], [6, 7]]},
          "address": {"云泽": [[3, 4]]}}}
    out  {"text": "许蓁到云泽，许蓁笑了", "entities": [{"start": 0, "end": 2, "label": "name"},
          {"start": 3, "end": 5, "label": "address"}, {"start": 6, "end": 8, "label": "name"}]}

The raw ends are inclusive, those of `entities` are not; they are sorted by start, then end, then
label. A span whose characters are not its string is an error: not one of the 23,971 spans of the
training set and the 3,072 of the dev set disagrees, so where one does, the file is damaged or
counts its offsets in another unit. Other fields are kept, and a test line without `label` passes
without gold.

Source: https://github.com/CLUEbenchmark/CLUENER2020 (train.json, dev.json, test.json).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from data_recipes import Record, convert_each, field, has_gold, run
from nlpkit.errors import RecordError


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The lines of the raw files (none, or `-`, is stdin) as `ner` records, in order.

    Raises DataError with `file:line` at the first line that is not CLUENER2020 or whose spans do
    not fit its text.
    """
    return convert_each(paths, _record)


def _record(raw: Record) -> Record:
    text = field(raw, "text", str)
    record = {name: value for name, value in raw.items() if name != "label"}
    if has_gold(raw, "label"):
        labels = field(raw, "label", dict)
        spans = []
        for label in labels:
            for span in _spans(text, field(labels, label, dict)):
                spans.append((*span, label))
        record["entities"] = [
            {"start": start, "end": end, "label": label} for start, end, label in sorted(spans)
        ]
    return record


def _spans(text: str, places: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """The half-open spans of one label's strings, each checked against the text."""
    for string in places:
        for span in field(places, string, list):
            if not (
                isinstance(span, list)
                and len(span) == 2
                and all(type(offset) is int for offset in span)
            ):
                raise RecordError(f'span of "{string}": expected [first, last], got {span!r}')
            start = span[0]
            end = span[1] + 1
            if start < 0 or text[start:end] != string or not string:
                raise RecordError(
                    f'span {span} is "{text[max(start, 0) : end]}" in the text: expected "{string}"'
                )
            yield start, end


if __name__ == "__main__":
    sys.exit(run(convert))
