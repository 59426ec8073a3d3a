"""Settings: dataclasses with defaults, filled from a TOML file, `section.key=value` pairs and
flags, in that order.

A section is a frozen dataclass; its fields, with a docstring under each, are the settings. Unknown
sections and keys are errors with a near miss; a value of the wrong type or out of its range is an
error that names the key. The range of a number stands in its type, as one of the kinds below:

    epochs: Annotated[int, Range(1, 1_000_000)] = 10
    dropout: Rate = 0.1
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from nlpkit.errors import SettingsError, did_you_mean, shown
from nlpkit.jsonl import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Values = dict[str, dict[str, Any]]

RENAMED = {
    "ape210k.beams": "ape210k.beam_size",
    "cln.beams": "cln.beam_size",
    "kgclue.balance": "kgclue.logit_adjustment",
    "kgclue.beams": "kgclue.beam_size",
    "mrc_seq2seq.beams": "mrc_seq2seq.beam_size",
}
"""Old names of settings, with the name that each has now. An old name is an error that tells it."""


@dataclass(frozen=True)
class Range:
    """Where a number may lie: from `least` to `most`, both included; above `above` and below
    `below`, which are not; a `multiple` of an integer. None sets no bound. A number is finite in
    any case."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    multiple: int = 1

    def problem(self, number: float) -> str | None:
        """What is expected of a number that lies outside; None for one inside."""
        if self.least is not None and number < self.least:
            return f"at least {self.least}"
        if self.most is not None and number > self.most:
            return f"at most {self.most}"
        if self.above is not None and number <= self.above:
            return f"a number above {self.above}"
        if self.below is not None and number >= self.below:
            return f"a number below {self.below}"
        if number % self.multiple and self.multiple > 1:
            return f"a multiple of {self.multiple}"
        return None


MANY = 1_000_000_000
"""Most of anything that is counted: no machine holds or does more of it."""
Size = Annotated[int, Range(1, 16_384)]
"""Of a vector, a beam, a list, or a short text in tokens: what a model holds many of."""
EvenSize = Annotated[int, Range(2, 16_384, multiple=2)]
"""Of vectors whose numbers are turned in pairs."""
Length = Annotated[int, Range(8, 1_000_000)]
"""Of a text, in tokens, [CLS] and [SEP] included."""
Depth = Annotated[int, Range(0, 1000)]
"""Layers."""
Positive = Annotated[int, Range(1, MANY)]
Count = Annotated[int, Range(0, MANY)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Share = Annotated[float, Range(0, 1)]
"""A part of a whole, or a chance."""
Rate = Annotated[float, Range(0, below=1)]
"""Of a dropout, or of a decay: all of it cannot go."""
Weight = Annotated[float, Range(0, 1e9)]
"""A factor or a strength; 0 for none."""
LearningRate = Annotated[float, Range(above=0)]
Score = Annotated[float, Range(-1e9, 1e9)]
"""A logit, or a threshold of logits."""


def read_toml(path: str | Path) -> Values:
    """The sections of a TOML file.

    Raises SettingsError for a file that cannot be read, that is not TOML, or that has a setting
    outside of a section.
    """
    try:
        values = tomllib.loads(read_text(path, SettingsError))
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from None
    for section, value in values.items():
        if not isinstance(value, dict):
            raise SettingsError(
                f"{path}: {section}: every setting belongs to a section, as in [train]"
            )
    return values


def parse_pairs(pairs: Iterable[str]) -> Values:
    """`section.key=value` strings as sections; a later pair wins over an earlier one.

    A value is TOML (3, 0.1, true, [1, 2]); `none` is None, anything else a string. Raises
    SettingsError for a string of another form.
    """
    values: Values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        section, dot, key = name.strip().partition(".")
        if not equals or not dot or not key:
            raise SettingsError(f'--set {pair}: expected section.key=value, got "{pair}"')
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):  # it is no TOML, too long a number, or too deep
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
    """An instance of the dataclass `cls` from plain values; `section` names it in messages.

    Raises SettingsError for an unknown key, a wrong type, or a value that `cls` refuses.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    names = [field.name for field in dataclasses.fields(cls)]
    for key in values:
        if key not in names:
            raise _unknown(f"{section}.{key}", key, names)
    fitting = {key: fit(value, hints[key], f"{section}.{key}") for key, value in values.items()}
    try:
        return cls(**fitting)
    except ValueError as error:
        key, colon, _ = str(error).partition(":")
        place = f"{section}." if colon and key in names else f"{section}: "
        raise SettingsError(f"{place}{error}") from None


def defaults_of(cls: type) -> dict[str, Any]:
    """Name -> value of the settings of the dataclass `cls` that nobody has set."""
    return {field.name: field.default for field in dataclasses.fields(cls)}


def with_present_names(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The values of a section as an earlier version wrote them, under the names of today."""
    present = {}
    for key, value in values.items():
        new = RENAMED.get(f"{section}.{key}", f"{section}.{key}")
        present[new.removeprefix(f"{section}.")] = value
    return present


def _unknown(setting: str, key: str, names: Iterable[str]) -> SettingsError:
    if setting in RENAMED:
        new = RENAMED[setting]
        return SettingsError(f'setting "{setting}" was renamed: it is "{new}" now')
    return SettingsError(f'unknown setting "{setting}"{did_you_mean(key, names)}')


def fit(value: Any, hint: Any, name: str) -> Any:
    """A plain value as the hinted type: int to float, number to str, list to tuple.

    `name` is that of the setting. Raises SettingsError where the value does not fit, or lies out of
    the range of an `Annotated` type.
    """
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is Annotated:
        number = fit(value, arguments[0], name)
        for bounds in arguments[1:]:
            problem = bounds.problem(number)
            if problem:
                raise SettingsError(f"{name}: expected {problem}, got {shown(value)}")
        return number
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return fit(value, next(a for a in arguments if a is not type(None)), name)
    if origin is typing.Literal:
        return _choice(value, arguments, name)
    if origin is tuple:
        elements = value if isinstance(value, (list, tuple)) else [value]
        return tuple(fit(element, arguments[0], name) for element in elements)
    if hint is float and type(value) in (int, float):
        return _finite(value, name)
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if type(value) is not hint:
        raise SettingsError(f"{name}: expected {hint.__name__}, got {shown(value)}")
    return value


def _finite(value: float, name: str) -> float:
    try:
        number = float(value)
    except OverflowError:  # of an integer of many digits
        number = math.inf
    if not math.isfinite(number):
        raise SettingsError(f"{name}: expected a finite number, got {shown(value)}")
    return number


def _choice(value: Any, known: tuple[Any, ...], name: str) -> Any:
    if value in known:
        return value
    names = [str(choice) for choice in known]
    near = did_you_mean(str(value), names)
    raise SettingsError(f"{name}: expected one of {', '.join(names)}, got {shown(value)}{near}")
