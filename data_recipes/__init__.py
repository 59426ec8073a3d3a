"""Raw public data sets to the JSONL of one task, each recipe a filter run by hand.

    python -m data_recipes.duie train_data.json > train.jsonl
    zcat train_data.json.gz | python -m data_recipes.duie --complete-for seen > train.jsonl
    nlpkit data convert duie train_data.json --set complete_for=seen > train.jsonl

A recipe is a module with `convert(paths, **options)`, a generator of records; no paths, or `-`, is
stdin. Its keyword-only parameters are its options on the command line: one that is False by default
is a switch, any other takes a string.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, TypeVar

import orjson

from nlpkit.errors import DataError, NlpkitError, RecordError, SettingsError, did_you_mean
from nlpkit.jsonl import Line, dumps, read_jsonl

Record = dict[str, Any]
Value = TypeVar("Value")

GOLD = {
    "spo_list": "duie",
    "sro_list": "news_sro",
    "label": "cluener",
    "equation": "ape210k",
    "mention_data": "ccks_el",
}
"""The gold fields of raw lines and the recipe that reads each."""

CLOSED_PIPE = 141
"""Exit code of a filter whose reader went away."""


def recipes() -> list[str]:
    """The names of the recipes, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(recipe: str) -> ModuleType:
    """The module of a recipe; `-` and `_` in its name are the same. Raises SettingsError for an
    unknown one."""
    name, known = recipe.replace("-", "_"), recipes()
    if name not in known:
        message = f'data convert: unknown recipe "{recipe}"{did_you_mean(name, known)}'
        raise SettingsError(message, hint=f"recipes: {', '.join(known)}")
    return importlib.import_module(f"{__name__}.{name}")


def parse_options(recipe: str, settings: Sequence[str]) -> dict[str, Any]:
    """The options of a recipe from `key=value` strings. Raises SettingsError for an unknown key or
    a bad switch."""
    known = _options(load(recipe).convert)
    options: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known:
            raise SettingsError(f'{recipe}: unknown option "{name}"{did_you_mean(name, known)}')
        options[name] = _switch(recipe, name, value) if known[name] is False else value
    return options


def _switch(recipe: str, name: str, value: str) -> bool:
    switches = {"true": True, "false": False}
    if value.lower() not in switches:
        raise SettingsError(f'{recipe}: option "{name}": expected true or false, got "{value}"')
    return switches[value.lower()]


def _options(convert: Callable[..., Iterator[Record]]) -> dict[str, Any]:
    """The keyword-only parameters of `convert` with their defaults."""
    parameters = inspect.signature(convert).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def convert_each(paths: Sequence[str], convert_one: Callable[[Record], Record]) -> Iterator[Record]:
    """Every record of the raw files through `convert_one`. Raises DataError with `file:line` at the
    first bad one."""
    for where, record in read_jsonl(paths or ["-"]):
        try:
            yield convert_one(record)
        except RecordError as error:
            raise error.at(where) from None


def parse_whole(lines: Iterable[Line], path: str) -> Any:
    """The JSON value that all lines of a file are together. Raises DataError where they are
    none."""
    try:
        return orjson.loads(b"\n".join(line.raw for line in lines))
    except orjson.JSONDecodeError as error:
        raise DataError(f"{name_of(path)}: not valid JSON: {error}") from None


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
    if not isinstance(value, expected):
        raise RecordError(
            f'field "{name}": expected {expected.__name__}, got {type(value).__name__}'
        )
    return value


def has_gold(raw: Record, name: str) -> bool:
    """Whether a line has its gold field; a test line has none. Raises RecordError where it has
    another data set's."""
    other = next((key for key in GOLD if key in raw and key != name), None)
    if name not in raw and other:
        raise RecordError(
            f'missing field "{name}": the line has "{other}"', hint=f"try the recipe {GOLD[other]}"
        )
    return name in raw


def run(convert: Callable[..., Iterator[Record]]) -> int:
    """A recipe as a command: the records of `convert` to stdout as JSON lines. Returns the exit
    code."""
    arguments = vars(_parser(convert).parse_args())
    try:
        _write(convert(arguments.pop("paths"), **arguments))
    except BrokenPipeError:
        # What is still in the buffer has nowhere to go; without this the interpreter would complain
        # at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except NlpkitError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"error: {error.message}{hint}\n")
        return error.exit_code
    return 0


def _write(records: Iterator[Record]) -> None:
    """The lines, flushed also where a later record is bad: the good ones before it count."""
    try:
        for record in records:
            sys.stdout.buffer.write(dumps(record) + b"\n")
    finally:
        sys.stdout.buffer.flush()


def _parser(convert: Callable[..., Iterator[Record]]) -> argparse.ArgumentParser:
    about = f"{inspect.getdoc(inspect.getmodule(convert))}\n\n{inspect.getdoc(convert)}"
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", metavar="RAW", help="raw files; none, or -, is stdin")
    for name, default in _options(convert).items():
        flag: dict[str, Any] = {"action": "store_true"} if default is False else {}
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, **flag)
    return parser
