"""Raw public data sets to the JSONL of one task, each recipe a filter run by hand.

    python -m data_recipes.duie train_data.json > train.jsonl
    zcat train_data.json.gz | python -m data_recipes.duie --complete-for seen > train.jsonl
    nlpkit data convert duie train_data.json --set complete_for=seen > train.jsonl

A recipe is a module with `convert(paths, **options)`, a generator of records (or of lines of text,
for a knowledge base); no paths, or `-`, is stdin. What it leaves out is counted on stderr. Its
keyword-only parameters are its options on the command line: one that is False by default is a
switch, any other takes a string.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import os
import pkgutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from data_recipes._raw import Record as Record
from data_recipes._raw import field as field
from data_recipes._raw import name_of as name_of
from data_recipes._raw import objects as objects
from data_recipes._raw import parse_whole as parse_whole
from data_recipes._raw import read_objects as read_objects
from data_recipes._signs import has_gold as has_gold
from data_recipes._signs import hint_for, recipe_of
from nlpkit.errors import NlpkitError, RecordError, SettingsError, did_you_mean, shown
from nlpkit.jsonl import dumps

CLOSED_PIPE = 141
"""Exit code of a filter whose reader went away."""


def recipes() -> list[str]:
    """The names of the recipes, in alphabetical order."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))


def load(recipe: str) -> ModuleType:
    """The module of a recipe; `-` and `_` in its name are the same. Raises SettingsError for an
    unknown one."""
    name = recipe.replace("-", "_")
    known = recipes()
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


def _options(convert: Callable[..., Iterator[Any]]) -> dict[str, Any]:
    """The keyword-only parameters of `convert` with their defaults."""
    parameters = inspect.signature(convert).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def convert_each(
    paths: Sequence[str], convert_one: Callable[..., Record], *options: Any
) -> Iterator[Record]:
    """`convert_one(raw, *options)` of everything in the raw files; `read_objects` says what a file
    may be.

    Raises DataError, with the place, at the first bad record (a RecordError of `convert_one`);
    where the record is one for another recipe, the hint names it.
    """
    for where, raw in read_objects(paths):
        try:
            if not isinstance(raw, dict):
                raise RecordError(f"expected a JSON object, got {shown(raw)}")
            yield convert_one(raw, *options)
        except RecordError as error:
            own = convert_one.__module__.removeprefix(f"{__name__}.")
            hint = error.hint or hint_for(recipe_of(raw), own)
            raise RecordError(error.message, hint).at(where) from None


@contextlib.contextmanager
def counting() -> Iterator[Counter[str]]:
    """Counts of what a recipe leaves out or mends, each named with its reason; at the end of the
    conversion, also an early one, they go to stderr."""
    counts: Counter[str] = Counter()
    try:
        yield counts
    finally:
        sys.stderr.write("".join(f"note: {count} {what}\n" for what, count in counts.items()))


def run(convert: Callable[..., Iterator[Any]]) -> int:
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


def _write(records: Iterator[Record | str]) -> None:
    """The lines, flushed also where a later record is bad: the good ones before it count."""
    try:
        for record in records:
            line = record.encode() if isinstance(record, str) else dumps(record)
            sys.stdout.buffer.write(line + b"\n")
    finally:
        sys.stdout.buffer.flush()


def _parser(convert: Callable[..., Iterator[Any]]) -> argparse.ArgumentParser:
    about = f"{inspect.getdoc(inspect.getmodule(convert))}\n\n{inspect.getdoc(convert)}"
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", metavar="RAW", help="raw files; none, or -, is stdin")
    for name, default in _options(convert).items():
        flag: dict[str, Any] = {"action": "store_true"} if default is False else {}
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, **flag)
    return parser
