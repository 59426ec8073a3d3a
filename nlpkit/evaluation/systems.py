"""Systems to compare: runs, folders of seeds, or files of predictions, on the lines of one test
set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlpkit.errors import DataError, SettingsError
from nlpkit.evaluation.scoring import predicted_pairs, run_pairs, scoring_task
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
    systems = [
        _read(source, paths, names.copy().pop(), asked)
        for source, paths in zip(sources, members, strict=True)
    ]
    _check_lines(systems, asked.data)
    return systems


def _members(source: Path) -> list[Path]:
    """The runs or files of a system's seeds; the source itself where it is a single one."""
    files = sorted(source.glob("seed-*.jsonl")) if source.is_dir() else []
    return runs_below(source) or files or [source]


def _read(source: Path, paths: list[Path], name: str, asked: Asked) -> System:
    lines: list[Line] = []
    seeds: list[Pairs] = []
    for path in paths:
        settings = list(asked.settings)
        if path.is_file():
            task, _ = scoring_task(None, name, settings, asked.device)
            pairs = predicted_pairs(task, str(path))
        else:
            task, loaded = scoring_task(path, None, settings, asked.device)
            assert loaded is not None
            pairs = run_pairs(loaded, str(asked.data), asked.batch_size)
        found = list(pairs)
        if not found:
            raise DataError(f"{path}: no records to evaluate")
        if seeds and len(found) != len(lines):
            raise DataError(f"{path}: expected {len(lines)} lines, got {len(found)}")
        lines = lines or [pair[0] for pair in found]
        seeds.append([(gold, prediction) for _, _, gold, prediction in found])
    return System(str(source), task, lines, seeds)


def _check_lines(systems: Sequence[System], data: str | None) -> None:
    """Raises DataError where a system has other lines than the others."""
    expected = list(read_lines(data)) if data not in (None, "-") else systems[0].lines
    inputs = [_input(line) for line in expected]
    for system in systems:
        for line, wanted, place in zip(system.lines, inputs, expected, strict=False):
            if _input(line) != wanted:
                raise DataError(f"{line.where}: is not the line at {place.where}")
        if len(system.lines) != len(expected):
            where = f"{system.name}: expected {len(expected)} lines"
            raise DataError(f"{where}, got {len(system.lines)}")


def _input(line: Line) -> dict[str, Any]:
    """The record without its prediction."""
    return {key: value for key, value in line.record_here().items() if key != "prediction"}
