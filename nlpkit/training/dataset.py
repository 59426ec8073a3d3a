"""From files of JSONL to the examples of a training run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlpkit.errors import DataError, RecordError
from nlpkit.jsonl import Line, read_lines


@dataclass(frozen=True)
class Records:
    """(place, record) pairs and the hash of the bytes they came from."""

    pairs: list[tuple[str, dict[str, Any]]]
    sha256: str


def read_records(paths: Sequence[str | Path]) -> Records:
    """The records of the files. Raises DataError where a line is no JSON object or there is
    none."""
    records = records_of([line for path in paths for line in read_lines(path)])
    if not records.pairs:
        raise DataError(f"{', '.join(map(str, paths))}: no records")
    return records


def records_of(lines: Sequence[Line]) -> Records:
    """The records of lines. Raises DataError where one is no JSON object."""
    digest = hashlib.sha256(b"".join(line.raw + b"\n" for line in lines))
    return Records([(line.where, line.record_here()) for line in lines], digest.hexdigest())


def read_examples(
    task: Any, pairs: Iterable[tuple[str, dict[str, Any]]], *, gold: bool = True
) -> list[Any]:
    """The examples of the records. Raises DataError with the place of a wrong one or, with `gold`,
    of one without gold."""
    examples = []
    for where, record in pairs:
        try:
            example = task.read(record)
        except RecordError as error:
            raise error.at(where) from None
        if gold and example.gold is None:
            raise DataError(
                f"{where}: no gold: training and evaluation need the answers",
                hint="lines without gold may be given as train.unlabelled, with the technique vat",
            )
        examples.append(example)
    return examples
