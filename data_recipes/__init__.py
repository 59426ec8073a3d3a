"""Raw public data sets to the JSONL of one task, each recipe a filter run by hand.

    python -m data_recipes.duie train_data.json > train.jsonl
    zcat train_data.json.gz | python -m data_recipes.duie --complete-for seen > train.jsonl

A recipe is a module with `convert(paths, **options)`, a generator of records; no paths, or `-`, is stdin. Its
keyword-only parameters are its options on the command line.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from nlpkit.errors import NlpkitError, RecordError
from nlpkit.jsonl import dumps, read_jsonl

Record = dict[str, Any]
Value = TypeVar("Value")

CLOSED_PIPE = 141
"""Exit code of a filter whose reader went away."""


def convert_each(paths: Sequence[str], convert_one: Callable[[Record], Record]) -> Iterator[Record]:
    """Every record of the raw files through `convert_one`. Raises DataError with `file:line` at the first bad one."""
    for where, record in read_jsonl(paths or ["-"]):
        try:
            yield convert_one(record)
        except RecordError as error:
            raise error.at(where) from None


def field(record: Any, name: str, expected: type[Value]) -> Value:
    """A field of a JSON object. Raises RecordError where it is missing or of another type."""
    if not isinstance(record, dict):
        raise RecordError(f'expected an object with "{name}", got {type(record).__name__}')
    if name not in record:
        raise RecordError(f'missing field "{name}"')
    value = record[name]
    if not isinstance(value, expected):
        raise RecordError(f'field "{name}": expected {expected.__name__}, got {type(value).__name__}')
    return value


def run(convert: Callable[..., Iterator[Record]]) -> int:
    """A recipe as a command: the records of `convert` to stdout as JSON lines. Returns the exit code."""
    arguments = vars(_parser(convert).parse_args())
    try:
        _write(convert(arguments.pop("paths"), **arguments))
    except BrokenPipeError:
        # What is still in the buffer has nowhere to go; without this the interpreter would complain at its end.
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
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", metavar="RAW", help="raw files; none, or -, is stdin")
    for parameter in inspect.signature(convert).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            flag: dict[str, Any] = {"action": "store_true"} if parameter.default is False else {}
            parser.add_argument(f"--{parameter.name.replace('_', '-')}", default=parameter.default, **flag)
    return parser
