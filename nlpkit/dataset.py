"""From files of JSONL to the examples of a training run."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Sequence
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


def read_records(paths: Sequence[str | Path], keep: Callable[[Line], bool] = lambda line: True) -> Records:
    """The records that `keep` lets pass. Raises DataError where a line is no JSON object or none is left."""
    digest, pairs = hashlib.sha256(), []
    for path in paths:
        for line in read_lines(path):
            if keep(line):
                digest.update(line.raw + b"\n")
                try:
                    pairs.append((line.where, line.record()))
                except RecordError as error:
                    raise error.at(line.where) from None
    if not pairs:
        raise DataError(f"{', '.join(map(str, paths))}: no records")
    return Records(pairs, digest.hexdigest())


def split_by_content(paths: Sequence[str | Path]) -> tuple[Records, Records]:
    """(train, dev) where no dev file is given: a line belongs to dev by the hash of its bytes, so that it does so in
    every run, whatever lines come before it. Of dev lines beyond DEV_MOST the rest train."""
    dev_lines = [line.raw for path in paths for line in read_lines(path) if zlib.crc32(line.raw) % DEV_SHARE == 0]
    dev = set(sorted(dev_lines, key=zlib.crc32)[:DEV_MOST])
    return read_records(paths, lambda line: line.raw not in dev), read_records(paths, lambda line: line.raw in dev)


def read_examples(task: Any, pairs: Iterable[tuple[str, dict[str, Any]]], *, gold: bool = True) -> list[Any]:
    """The examples of the records. Raises DataError with the place of a wrong one or, if wanted, one without gold."""
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
