"""One scorer for a run on data and for a file of predictions, streamed: neither logits nor
predictions are kept."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlpkit import encoders, run, tasks
from nlpkit.config import parse_pairs, resolve
from nlpkit.errors import DataError, RecordError, SettingsError
from nlpkit.evaluation.calibration import Scored, calibration, scored_facts
from nlpkit.evaluation.error_kinds import errors_of
from nlpkit.evaluation.metrics import MicroF1
from nlpkit.inference.devices import resolve_device
from nlpkit.inference.predictor import Predictor
from nlpkit.inference.windows import WINDOW, line_windows
from nlpkit.jsonl import Line, read_lines, with_field, write_atomic
from nlpkit.task import AsksRun
from nlpkit.text.deferred import DeferredTokenizer

NO_GOLD = "no gold: evaluation needs the answers"

Pair = tuple[Line, dict[str, Any], Any, Any]  # line, record, gold, prediction


def scoring_task(
    folder: Path | None, name: str | None, pairs: list[str], device: str, kb: str | None = None
) -> tuple[Any, run.Run | None]:
    """(task, run) of a run, or (task, None) of a task by its name, with the settings given. Raises
    SettingsError.

    `kb` is the knowledge base of a task that has one, see `nlpkit.run.load`.
    """
    values = parse_pairs(pairs)
    if folder is not None:
        loaded = run.load(folder, resolve_device(device), kb, values)
        return loaded.task, loaded
    section, task_class = tasks.section_name(str(name)), tasks.load(str(name))
    kb_values = tasks.kb_values(section, kb)
    config = resolve({section: task_class.Config}, values, kb_values)[section]
    tokenizer = DeferredTokenizer(encoders.load_tokenizer("tiny").backend)
    return task_class(config, tokenizer, None), None


def run_pairs(loaded: run.Run, path: str, batch_size: int) -> Iterator[Pair]:
    """Gold and the model's prediction for every line of a file."""
    task = loaded.task
    lines = read_lines(path)
    predictor = Predictor(task, loaded.model, loaded.precision, batch_size, decode=task.evaluate)
    for chunk in line_windows(lines):
        records = [line.record_here() for line in chunk]
        read = []
        for line, record in zip(chunk, records, strict=True):
            outcome = predictor.read(line.number, record)
            if outcome.error is not None:
                raise outcome.error.at(line.where)
            if outcome.example.gold is None:
                raise RecordError(NO_GOLD).at(line.where)
            read.append(outcome)
        for line, record, outcome in zip(chunk, records, predictor.finish(read), strict=True):
            prediction = task.restrict_to_annotated(outcome.example, outcome.prediction)
            yield line, record, outcome.example.gold, prediction


def with_answers(task: Any, pairs: Iterator[Pair], batch_size: int, device: str) -> Iterator[Pair]:
    """The pairs as they are; where the settings of an `AsksRun` name another run, the predictions
    with what that run says of them.

    Raises SettingsError at once where the other run is of another task than is asked for.
    """
    if not isinstance(task, AsksRun) or not task.asked_run:
        return pairs
    other = run.load(task.asked_run, resolve_device(device))
    if other.config["task"] != task.asked_task:
        raise SettingsError(
            f"{task.asked_setting}: expected a run of {task.asked_task}, got one of "
            f"{other.config['task']}: {task.asked_run}"
        )
    return _answered(task, pairs, Predictor(other.task, other.model, other.precision, batch_size))


def _answered(task: Any, pairs: Iterator[Pair], other: Predictor) -> Iterator[Pair]:
    def ask(records: list[dict[str, Any]]) -> list[Any]:
        return other.of_examples([other.task.read(record) for record in records])

    while chunk := list(itertools.islice(pairs, WINDOW)):
        answered = task.with_answers([prediction for *_, prediction in chunk], ask)
        for (line, record, gold, _), prediction in zip(chunk, answered, strict=True):
            yield line, record, gold, prediction


def predicted_pairs(
    task: Any, path: str, read: Callable[[int, dict[str, Any]], Any] | None = None
) -> Iterator[Pair]:
    """Gold and the prediction that the line carries, for every line of a file that `predict`
    wrote, in the order of the file.

    `read` gives the example of a record and its place among those of the file, counted from 0;
    None: the task reads it.

    Raises DataError, with the place, for a line without gold or prediction, or with a bad one (a
    RecordError of the task).
    """
    for place, line in enumerate(read_lines(path)):
        record = line.record_here()
        try:
            if not isinstance(record.get("prediction"), dict):
                raise RecordError(
                    'missing field "prediction"', hint="nlpkit predict RUN FILE writes it"
                )
            example = read(place, record) if read else task.read(record)
            prediction = task.parse(record["prediction"])
            if example.gold is None:
                raise RecordError(NO_GOLD)
            yield line, record, example.gold, task.restrict_to_annotated(example, prediction)
        except RecordError as error:
            raise error.at(line.where) from None


@dataclass
class Scoring:
    """Metrics of pairs; `by` groups them, `errors` takes the lines with missed or extra facts,
    `calibrated` asks for the calibration of scores."""

    task: Any
    by: str | None = None
    errors: Path | None = None
    calibrated: bool = False

    def score(self, pairs: Iterator[Pair]) -> dict[str, Any]:
        """The task's metrics and, if asked for, those of every group under `by`. Raises
        SettingsError, DataError."""
        if self.by not in (None, self.task.group):
            raise SettingsError(f'--by: this task groups by {self.task.group}, not by "{self.by}"')
        groups = MicroF1()
        count = 0
        scored: list[Scored] = []
        with contextlib.ExitStack() as stack:
            sink = stack.enter_context(write_atomic(self.errors)) if self.errors else None

            def seen() -> Iterator[tuple[Any, Any]]:
                nonlocal count
                for line, record, gold, prediction in pairs:
                    count += 1
                    facts = self.task.facts(gold), self.task.facts(prediction)
                    groups.add(*facts)
                    if self.calibrated:
                        scored.extend(scored_facts(self.task, gold, prediction))
                    if sink and facts[0].keys() != facts[1].keys():
                        sink.write(_with_errors(line, record, *facts, self.task.group) + b"\n")
                    yield gold, prediction

            metrics = self.task.score(seen())
        if not count:
            raise DataError("no records to evaluate")
        by_group = {"by": groups.by_group()} if self.by else {}
        calibrated = {"calibration": calibration(scored)} if self.calibrated else {}
        return {"lines": count, **metrics, **by_group, **calibrated}


def _with_errors(
    line: Line, record: dict[str, Any], gold: dict[Any, str], predicted: dict[Any, str], group: str
) -> bytes:
    """The line with what was missed, what was extra, and the errors that these make."""
    raw = line.raw
    added = {
        "missed": sorted(gold.keys() - predicted.keys()),
        "extra": sorted(predicted.keys() - gold.keys()),
        "errors": errors_of(gold, predicted, group),
    }
    for key, value in added.items():
        raw = with_field(raw, record, key, value)
        record = {**record, key: value}
    return raw
