"""From files of JSONL to the examples of a training run."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlpkit.errors import DataError, RecordError
from nlpkit.jsonl import Line, read_lines

DEV_SHARE = 10  # one line in ten becomes dev where no dev file is given
DEV_MOST = 2000


@dataclass(frozen=True)
class Records:
    """(place, record) pairs and the hash of the bytes they came from."""

    pairs: list[tuple[str, dict[str, Any]]]
    sha256: str


def read_records(paths: Sequence[str | Path]) -> Records:
    """The records of the files. Raises DataError where a line is no JSON object or there is
    none."""
    records = _records([line for path in paths for line in read_lines(path)])
    if not records.pairs:
        raise DataError(f"{', '.join(map(str, paths))}: no records")
    return records


def split_by_content(paths: Sequence[str | Path]) -> tuple[Records, Records]:
    """(train, dev) where no dev file is given: a line belongs to dev by the hash of its bytes, so
    that it does so in every run, whatever lines come before it. Of dev lines beyond DEV_MOST the
    rest train."""
    lines = [line for path in paths for line in read_lines(path)]
    hashed = {line.raw for line in lines if zlib.crc32(line.raw) % DEV_SHARE == 0}
    dev = set(sorted(hashed, key=zlib.crc32)[:DEV_MOST])
    parts = (
        _records([line for line in lines if line.raw not in dev]),
        _records([x for x in lines if x.raw in dev]),
    )
    if not parts[0].pairs or not parts[1].pairs:
        names = ", ".join(map(str, paths))
        raise DataError(
            f"{names}: {len(lines)} lines are too few to keep some for evaluation",
            hint="give --dev",
        )
    return parts


def _records(lines: Sequence[Line]) -> Records:
    digest = hashlib.sha256(b"".join(line.raw + b"\n" for line in lines))
    return Records([(line.where, line.record_here()) for line in lines], digest.hexdigest())


def read_examples(
    task: Any, pairs: Iterable[tuple[str, dict[str, Any]]], *, gold: bool = True
) -> list[Any]:
    """The examples of the records. Raises DataError with the place of a wrong one or, if wanted,
    one without gold."""
    examples = []
    for where, record in pairs:
        try:
            example = task.read(record)
        except RecordError as error:
            raise error.at(where) from None
        if gold and example.gold is None:
            raise DataError(f"{where}: no gold: training and evaluation need the answers")
        examples.append(example)
    return examples
