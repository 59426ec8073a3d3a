"""Values from files as the types that the code expects: the one place where they are checked.

A file of predictions may have been written by anybody, and a file of a run may be damaged. Whatever
is no value of its type is an error that names the field, so that scoring and loading meet nothing
they do not expect.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from nlpkit.errors import DataError, RecordError, SettingsError, shown
from nlpkit.json_value import parse_json
from nlpkit.jsonl import open_binary

T = TypeVar("T")

LARGEST = 2**53
"""Whole numbers below it are exact in every reader of JSON; no offset or count comes near."""

_NAMES: dict[Any, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    dict: "an object",
}


def read_dataclass(cls: type[T], value: Any, where: str = "") -> T:
    """A JSON object as an instance of the dataclass `cls`; fields that it does not know are left
    out.

    Fields `start` and `end`, and pairs of whole numbers, are spans: 0 <= start < end. `where` is
    the name of the field that holds the object, for messages. Raises RecordError.
    """
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    kinds: Any = cls
    hints = _hints(kinds)
    given = {}
    for field in dataclasses.fields(kinds):
        name = f"{where}.{field.name}" if where else field.name
        if field.name in value:
            given[field.name] = read_value(hints[field.name], value[field.name], name)
        elif _is_required(field):
            raise RecordError(f'missing field "{name}"')
    if {"start", "end"} <= given.keys():
        _check_span(given["start"], given["end"], where)
    return cls(**given)


def read_json(hint: Any, path: Path) -> Any:
    """The value of a JSON file of a run, of the type `hint` as in `read_value`.

    Raises SettingsError that names the file: one that is missing, damaged or of something else.
    """
    try:
        with open_binary(path) as stream:
            return read_value(hint, parse_json(stream.read()), "")
    except RecordError as error:
        raise SettingsError(f"{path}: {error.message}") from None
    except (DataError, OSError) as error:  # names the file
        raise SettingsError(str(error)) from None


def read_value(hint: Any, value: Any, name: str) -> Any:
    """A JSON value as the type `hint`: a string, a number, a dataclass; a list, tuple or dict of
    such; or one of these or None. Raises RecordError that names the field."""
    kind = type(value)
    if kind is hint and kind is str:
        return value
    origin, arguments = _parts(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return read_value(arguments[0], value, name)
    if origin is dict and isinstance(value, dict):
        inner = arguments[1]
        return {key: read_value(inner, item, f"{name}.{key}") for key, item in value.items()}
    if hint is Any:
        return value
    if origin in (list, tuple):
        return _read_list(origin, arguments, value, name)
    if dataclasses.is_dataclass(hint):
        return read_dataclass(typing.cast(type, hint), value, name)
    is_number = kind in (int, float) and -LARGEST < value < LARGEST
    if hint is float and is_number:
        return value
    if kind is hint and (is_number or hint not in (int, float)):
        return value
    raise _wrong(name, _NAMES.get(origin or hint, str(hint)), value)


def _read_list(kind: Any, arguments: tuple[Any, ...], value: Any, name: str) -> Any:
    is_span = kind is tuple and arguments == (int, int)
    if not isinstance(value, list) or (is_span and len(value) != 2):
        raise _wrong(name, "[start, end]" if is_span else "a list", value)
    read = [read_value(arguments[0], item, f"{name}[{n}]") for n, item in enumerate(value)]
    if is_span:
        _check_span(read[0], read[1], name)
    return kind(read)


def _check_span(start: int, end: int, where: str) -> None:
    if not 0 <= start < end:
        raise _wrong(where, "a span with 0 <= start < end", [start, end])


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _wrong(name: str, expected: str, value: Any) -> RecordError:
    place = f'field "{name}": ' if name else ""
    return RecordError(f"{place}expected {expected}, got {shown(value)}")


@functools.cache
def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """The origin of a type and its arguments."""
    return typing.get_origin(hint), typing.get_args(hint)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)
