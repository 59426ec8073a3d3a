"""Settings: dataclasses with defaults, filled from a TOML file, `section.key=value` pairs and
flags, in that order.

A section is a frozen dataclass; its fields, with a docstring under each, are the settings. Unknown
sections and keys are errors with a near miss; a value of the wrong type is an error that names the
key.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nlpkit.errors import SettingsError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Values = dict[str, dict[str, Any]]


def read_toml(path: str | Path) -> Values:
    """The sections of a TOML file."""
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from None
    for section, value in values.items():
        if not isinstance(value, dict):
            raise SettingsError(
                f"{path}: {section}: every setting belongs to a section, as in [train]"
            )
    return values


def parse_pairs(pairs: Iterable[str]) -> Values:
    """`section.key=value` strings as sections. A value is TOML (3, 0.1, true, [1, 2]); anything
    else is a string."""
    values: Values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        section, dot, key = name.strip().partition(".")
        if not equals or not dot or not key:
            raise SettingsError(f'--set {pair}: expected section.key=value, got "{pair}"')
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = None if text == "none" else text
        values.setdefault(section, {})[key] = value
    return values


def resolve(sections: Mapping[str, type], *sources: Values) -> dict[str, Any]:
    """One instance of every section; a later source wins over an earlier one.

    Raises SettingsError for an unknown section or key, a wrong type, or a value that the section
    itself refuses.
    """
    merged: Values = {name: {} for name in sections}
    for source in sources:
        for section, values in source.items():
            if section not in sections:
                raise SettingsError(f'unknown section "{section}"{did_you_mean(section, sections)}')
            merged[section].update(values)
    return {name: build(cls, merged[name], name) for name, cls in sections.items()}


def build(cls: type, values: Mapping[str, Any], section: str) -> Any:
    """An instance of the dataclass `cls` from plain values."""
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    for key in values:
        if key not in names:
            raise SettingsError(f'unknown setting "{section}.{key}"{did_you_mean(key, names)}')
    try:
        return cls(
            **{key: _coerce(value, hints[key], f"{section}.{key}") for key, value in values.items()}
        )
    except ValueError as error:
        raise SettingsError(f"{section}: {error}") from None


def _coerce(value: Any, hint: Any, name: str) -> Any:
    """`value` as the hinted type: int to float, list to tuple; SettingsError where it does not
    fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _coerce(value, next(a for a in arguments if a is not type(None)), name)
    if origin is typing.Literal:
        if value not in arguments:
            near = did_you_mean(str(value), map(str, arguments))
            raise SettingsError(
                f"{name}: expected one of {', '.join(map(str, arguments))}, got {value!r}{near}"
            )
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            value = [value]
        return tuple(_coerce(element, arguments[0], name) for element in value)
    if hint is float and type(value) is int:
        return float(value)
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if type(value) is not hint:
        raise SettingsError(f"{name}: expected {hint.__name__}, got {value!r}")
    return value
