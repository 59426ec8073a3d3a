"""What `nlpkit data check` finds: reads every line as training would, and tells which gold no model
can ever see."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlpkit import encoders, tasks
from nlpkit.config import parse_pairs, resolve
from nlpkit.errors import DataError, RecordError
from nlpkit.jsonl import Line, dumps, read_lines

GIVEN = ("text", "question", "context", "passages", "text_a", "text_b")
"""The fields that a model is given: lines equal in them are duplicates."""

FIELDS = 12
"""Names of a line's fields that a finding shows at most."""

Place = tuple[str, str, str]  # file:line, kind, message


@dataclass
class Checking:
    """Findings, to iterate over once; the counts are complete afterwards."""

    task: Any
    sources: list[Line]
    problem: str = ""
    """Why nothing can be learned from all lines together; the lines alone are then looked at."""
    lines: int = 0
    unreadable: int = 0
    facts: int = 0
    lost: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    places: dict[bytes, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Place]:
        for line in self.sources:
            self.lines += 1
            try:
                findings = list(self._findings(line.record(), line.where))
            except RecordError as error:
                self.unreadable += 1
                findings = [("unreadable", error.message)]
            for kind, message in findings:
                self.kinds[kind] += 1
                yield line.where, kind, message
        if self.problem:
            self.kinds["nothing to learn"] += 1
            yield self.sources[0].where.rpartition(":")[0], "nothing to learn", self.problem

    def _findings(self, record: dict[str, Any], where: str) -> Iterator[tuple[str, str]]:
        example = self.task.read(record)
        if example.gold is None:
            fields = ", ".join(f'"{name}"' for name in list(record)[:FIELDS])
            yield (
                "no gold",
                f"neither training nor evaluation can use the line: its fields are {fields}",
            )
            return
        self.facts += len(self.task.facts(example.gold))
        lost = set()
        for finding in () if self.problem else self.task.report(example):
            if finding.lost is not None:
                lost.add(finding.lost)
            yield finding.kind, finding.message
        self.lost += len(lost)
        given = {name: record[name] for name in GIVEN if name in record}
        first = self.places.setdefault(dumps(given) if given else where.encode(), where)
        if first != where:
            yield "duplicate", f"the same text as {first}"

    def summary(self) -> dict[str, Any]:
        """Counts, and the share of the gold facts that survives encoding."""
        share = 1 - self.lost / self.facts if self.facts else 1.0
        counts = {
            "lines": self.lines,
            "unreadable": self.unreadable,
            "facts": self.facts,
            "lost": self.lost,
        }
        return {**counts, "survives": round(share, 6), "findings": dict(self.kinds.most_common())}


def check_data(
    name: str, file: str, dev: str | None, encoder: str, pairs: list[str], kb: str | None = None
) -> Checking:
    """Prepares the check: labels are those of `file`, or of the settings.

    Raises SettingsError, and DataError for a file without any line.
    """
    task_class = tasks.load(name)
    section = tasks.section_name(name)
    kb_values = tasks.kb_values(section, kb)
    config = resolve({section: task_class.Config}, parse_pairs(pairs), kb_values)[section]
    tokenizer = encoders.load_tokenizer(encoder)
    probe = task_class(config, tokenizer, None)
    lines = list(read_lines(file))
    if not lines:
        raise DataError(f"{file}: no records")
    sources = lines + (list(read_lines(dev)) if dev else [])
    with tempfile.TemporaryDirectory() as folder:
        try:
            config = task_class.prepare(config, _readable(probe, lines), Path(folder))
            task = task_class(config, tokenizer, Path(folder))
        except DataError as error:  # the lines say why
            return Checking(probe, sources, error.message)
    return Checking(task, sources)


def _readable(probe: Any, lines: list[Line]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records that the task can read; the others are reported later."""
    for line in lines:
        try:
            record = line.record()
            probe.read(record)
        except RecordError:
            continue
        yield line.where, record
