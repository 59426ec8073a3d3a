"""Systems to compare: runs, folders of seeds, or files of predictions, on the lines of one test
set."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlpkit.errors import DataError, RecordError, SettingsError
from nlpkit.evaluation.scoring import Pair, predicted_pairs, run_pairs, scoring_task
from nlpkit.inference.seeds import runs_below
from nlpkit.jsonl import Line, read_lines
from nlpkit.run import read_config

Pairs = list[tuple[Any, Any]]  # (gold, prediction) of every line


@dataclass(frozen=True)
class System:
    """What a system predicted: the pairs of every seed, one for each of `lines`."""

    name: str
    task: Any
    lines: list[Line]
    seeds: list[Pairs]


@dataclass(frozen=True)
class Asked:
    """How the systems are to be read: the test set (None: the lines that the files carry), the name
    of the task (None: that of the runs), settings of the task as `key=value` pairs."""

    data: str | None = None
    task: str | None = None
    settings: Sequence[str] = ()
    batch_size: int = 64
    device: str = "auto"


def read_systems(sources: Sequence[Path], asked: Asked) -> list[System]:
    """The systems, in order. Raises SettingsError, and DataError where their lines are not the
    same."""
    members = [_members(source) for source in sources]
    runs = [path for paths in members for path in paths if not path.is_file()]
    if runs and asked.data is None:
        raise SettingsError(f"{runs[0]}: a run needs lines to predict", hint="give --data FILE")
    names = {read_config(run)["task"] for run in runs if (run / "config.json").exists()}
    if asked.task is not None:
        names.add(asked.task)
    if not names:
        raise SettingsError("files of predictions don't say their task", hint="give --task NAME")
    if len(names) > 1:
        raise SettingsError(f"the systems are of several tasks: {', '.join(sorted(names))}")
    test = TestSet(asked, names.pop())
    return [_read(source, paths, test) for source, paths in zip(sources, members, strict=True)]


class TestSet:
    """The lines that every system must have: those of `asked.data`, else those of the first system
    that is read.

    What the task `name` reads of a line, its gold above all, is read once for all files of
    predictions.
    """

    def __init__(self, asked: Asked, name: str):
        self.asked = asked
        self.name = name
        self.lines: list[Line] = []
        self.inputs: list[dict[str, Any]] = []  # the records without predictions
        self.examples: list[Any] = []
        if asked.data not in (None, "-"):
            for line in read_lines(str(asked.data)):
                self.lines.append(line)
                self.inputs.append(_input(line.record_here()))

    @functools.cached_property
    def scorer(self) -> Any:
        """The task of files of predictions."""
        return scoring_task(None, self.name, list(self.asked.settings), self.asked.device)[0]

    def pairs_of(self, path: Path) -> tuple[Any, Iterator[Pair]]:
        """The task of a run or a file, and its pairs."""
        asked = self.asked
        if path.is_file():
            return self.scorer, predicted_pairs(self.scorer, str(path), self._example)
        task, loaded = scoring_task(path, None, list(asked.settings), asked.device)
        assert loaded is not None
        return task, run_pairs(loaded, str(asked.data), asked.batch_size)

    def _example(self, place: int, record: dict[str, Any]) -> Any:
        """The example of the record at a place in a file. Raises RecordError where the line at this
        place is another."""
        if place < len(self.inputs) and _input(record) != self.inputs[place]:
            raise RecordError(f"is not the line at {self.lines[place].where}")
        if place == len(self.examples):
            self.examples.append(self.scorer.read(record))
        return self.examples[place]


def _members(source: Path) -> list[Path]:
    """The runs or files of a system's seeds; the source itself where it is a single one."""
    files = sorted(source.glob("seed-*.jsonl")) if source.is_dir() else []
    return runs_below(source) or files or [source]


def _read(source: Path, paths: list[Path], test: TestSet) -> System:
    seeds: list[Pairs] = []
    for path in paths:
        task, pairs = test.pairs_of(path)
        lines: list[Line] = []
        found: Pairs = []
        is_first = not test.inputs
        for line, record, gold, prediction in pairs:
            lines.append(line)
            found.append((gold, prediction))
            if is_first:
                test.lines.append(line)
                test.inputs.append(_input(record))
        if not found:
            raise DataError(f"{path}: no records to evaluate")
        if len(found) != len(test.lines):
            raise DataError(f"{path}: expected {len(test.lines)} lines, got {len(found)}")
        seeds.append(found)
    return System(str(source), task, lines, seeds)


def _input(record: dict[str, Any]) -> dict[str, Any]:
    """The record without its prediction."""
    return {key: value for key, value in record.items() if key != "prediction"}
