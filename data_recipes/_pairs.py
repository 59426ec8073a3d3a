"""Pairs of sentences in columns, as the Chinese similarity data sets have them, and groups made of
those that are alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from data_recipes import Record, counting
from nlpkit.errors import RecordError, shown
from nlpkit.jsonl import Line, read_lines

MARK = "\ufeff"
"""A byte order mark, which stands at the start of some sentences too."""
FIELDS = ("sentence1", "sentence2", "label")


def pairs_of(
    paths: Sequence[str], *, columns: int = 3, grades: bool = False, groups: bool = False
) -> Iterator[Record]:
    """The pairs of the raw files (none, or `-`, is stdin), in order; or the groups of them.

    Args:
        columns: of a line, between tabs; the last three are the sentences and the label.
        grades: a label may be any number, not 0 and 1 alone.
        groups: give the sentences of pairs with label 1, each once with its group, instead.

    Raises DataError with the place at the first line that is no pair.
    """
    with counting() as counts:
        pairs = _pairs(paths, columns, grades, counts)
        yield from _in_groups(pairs, counts) if groups else pairs


def _pairs(
    paths: Sequence[str], columns: int, grades: bool, counts: Counter[str]
) -> Iterator[Record]:
    for path in paths or ["-"]:
        for line in read_lines(path):
            try:
                record = _pair(line, columns, grades)
            except RecordError as error:
                raise error.at(line.where) from None
            if record["text_a"] and record["text_b"]:
                yield record
            else:
                counts["pairs with an empty side: left out"] += 1


def _pair(line: Line, columns: int, grades: bool) -> Record:
    parts = line.text().split("\t")
    is_object = len(parts) == 1 and line.raw.startswith(b"{")
    if not is_object and len(parts) != columns:
        raise RecordError(f"expected {columns} columns between tabs, got {len(parts)}")
    first, second, label = _fields(line) if is_object else parts[-3:]
    number = _number(label, grades)
    return {"text_a": _cleaned(first), "text_b": _cleaned(second), "label": number}


def _fields(line: Line) -> list[str]:
    """The same of a JSON object, as CLUE has them."""
    record = line.record()
    values = []
    for name in FIELDS:
        value = record.get(name)
        if not isinstance(value, (str, int, float)):
            raise RecordError(f'field "{name}": expected a string, got {shown(value)}')
        values.append(str(value))
    return values


def _number(label: str, grades: bool) -> int | float:
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or not (grades or number in (0, 1)):
        expected = "a grade, which is a number" if grades else "0 or 1"
        raise RecordError(f"label: expected {expected}, got {shown(label)}")
    return int(number) if number.is_integer() else number


def _cleaned(text: str) -> str:
    return text.replace(MARK, "").strip()


def _in_groups(pairs: Iterator[Record], counts: Counter[str]) -> Iterator[Record]:
    """Sentences that pairs with label 1 join, directly or through others, in the order in which
    they come first; the groups are numbered from 1 in the same order."""
    parents: dict[str, str] = {}

    def root(text: str) -> str:
        while parents[text] != text:
            parents[text] = parents[parents[text]]  # halves the way for the next one
            text = parents[text]
        return text

    for pair in pairs:
        if pair["label"] != 1 or pair["text_a"] == pair["text_b"]:
            counts["pairs that join no two sentences: left out"] += 1
            continue
        for side in ("text_a", "text_b"):
            parents.setdefault(pair[side], pair[side])
        parents[root(pair["text_b"])] = root(pair["text_a"])
    numbers: dict[str, int] = {}
    for text in parents:
        number = numbers.setdefault(root(text), len(numbers) + 1)
        yield {"text": text, "group": number}
