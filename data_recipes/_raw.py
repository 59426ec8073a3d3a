"""Raw files as JSON objects with their places, and the checks that recipes share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from data_recipes._signs import hint_for, recipe_of_line
from nlpkit.errors import DataError, RecordError, shown
from nlpkit.json_value import parse_json
from nlpkit.jsonl import Line, read_lines

Record = dict[str, Any]
Value = TypeVar("Value")

LONGEST = 1000
"""Lines of an object that is written over several."""


def read_objects(paths: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """(place, value) of everything in the raw files, in order; no paths, or `-`, is stdin.

    A file holds an object a line, objects over several lines one after another, or one list of
    objects. The place is `file:line` of the first line, in a list `file: [index]`. Raises DataError
    where a file is none of these.
    """
    for path in paths or ["-"]:
        lines = read_lines(path)
        first = next(lines, None)
        if first is None:
            continue
        everything = _after(first, lines)
        if first.raw.startswith(b"["):
            yield from _in_list(everything, path)
        else:
            yield from _in_lines(everything)


def _after(first: Line, others: Iterator[Line]) -> Iterator[Line]:
    yield first
    yield from others


def _in_list(lines: Iterable[Line], path: str) -> Iterator[tuple[str, Any]]:
    whole = parse_whole(lines, path)
    if not isinstance(whole, list):
        raise DataError(f"{name_of(path)}: expected a list of objects, got {shown(whole)}")
    for index, value in enumerate(whole):
        yield f"{name_of(path)}: [{index}]", value


def _in_lines(lines: Iterable[Line]) -> Iterator[tuple[str, Any]]:
    """Objects one after another; one that does not end on its line goes on to a line that ends with
    its bracket."""
    waiting: list[Line] = []
    for line in lines:
        waiting.append(line)
        if len(waiting) > 1 and not line.raw.rstrip(b",").endswith(b"}"):
            _check_length(waiting)
            continue
        try:
            value = parse_json(b"\n".join(part.raw for part in waiting).rstrip(b","))
        except RecordError as error:
            goes_on = waiting[0].raw.startswith(b"{") and not waiting[0].raw.endswith(b"}")
            if not goes_on:
                hint = error.hint or hint_for(recipe_of_line(waiting[0].text()))
                raise RecordError(error.message, hint).at(waiting[0].where) from None
            _check_length(waiting)
            continue
        yield waiting[0].where, value
        waiting = []
    if waiting:
        raise DataError(f"{waiting[0].where}: not valid JSON: the object has no end")


def _check_length(waiting: Sequence[Line]) -> None:
    if len(waiting) == LONGEST:
        is_squad = any(b'"paragraphs"' in line.raw for line in waiting)
        message = f"{waiting[0].where}: not valid JSON: no end within {LONGEST} lines"
        raise DataError(message, hint_for("cmrc2018" if is_squad else None))


def parse_whole(lines: Iterable[Line], path: str) -> Any:
    """The JSON value that all lines of a file are together. Raises DataError where they are
    none."""
    try:
        return parse_json(b"\n".join(line.raw for line in lines))
    except RecordError as error:
        raise error.at(name_of(path)) from None


def name_of(path: str) -> str:
    """How errors call a file."""
    return "stdin" if path == "-" else path


def field(record: Any, name: str, expected: type[Value]) -> Value:
    """A field of a JSON object. Raises RecordError where it is missing or of another type."""
    if not isinstance(record, dict):
        raise RecordError(f'expected an object with "{name}", got {type(record).__name__}')
    if name not in record:
        raise RecordError(f'missing field "{name}"')
    value = record[name]
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise RecordError(
            f'field "{name}": expected {expected.__name__}, got {type(value).__name__}'
        )
    return value


def objects(record: Any, name: str) -> list[Record]:
    """A field that is a list of objects. Raises RecordError where it is none."""
    values = field(record, name, list)
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise RecordError(f"{name}[{index}]: expected an object, got {shown(value)}")
    return values


def span_of(text: str, start: Any, end: Any) -> tuple[int, int]:
    """The half-open span of some characters of the text, perhaps none. Raises RecordError where it
    is no span of the text."""
    if type(start) is not int or type(end) is not int or not 0 <= start <= end <= len(text):
        raise RecordError(
            f"[{shown(start)}, {shown(end)}) is no span of the text of {len(text)} characters"
        )
    return start, end


def from_utf16(text: str, start: int, end: int) -> tuple[int, int]:
    """Offsets that count characters beyond U+FFFF twice as offsets in characters."""
    units = text.encode("utf-16-le", "surrogatepass")
    before = units[: 2 * max(0, start)].decode("utf-16-le", "ignore")
    inside = units[2 * max(0, start) : 2 * max(0, end)].decode("utf-16-le", "ignore")
    return len(before), len(before) + len(inside)


def without(record: Record, *names: str) -> Record:
    """The record without some of its fields, the others in their order."""
    return {name: value for name, value in record.items() if name not in names}


def join_tokens(tokens: Iterable[str]) -> str:
    """Tokens as a text, with a space between two Latin words."""
    text = ""
    for token in tokens:
        text += (" " if is_latin(text[-1:]) and is_latin(token[:1]) else "") + token
    return text


def is_latin(character: str) -> bool:
    """Whether it is a letter of ASCII; no character is none."""
    return character.isascii() and character.isalpha()
