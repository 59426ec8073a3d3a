"""Labels of whole texts: as records give them, found in the data, kept in the run as
`labels.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nlpkit.errors import DataError, RecordError, did_you_mean, shown
from nlpkit.formats.typed import read_json
from nlpkit.jsonl import write_atomic

LABELS = "labels.json"


def read_label(value: Any, name: str = "label") -> str | None:
    """A label: a string that is not blank, or a whole number; None where there is none. Raises
    RecordError."""
    if value is None:
        return None
    if not isinstance(value, (str, int)) or isinstance(value, bool) or not str(value).strip():
        raise RecordError(
            f'field "{name}": expected a string or a whole number, got {shown(value)}'
        )
    return str(value)


def find_labels(records: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """The labels in the field `label` of (place, record) pairs, sorted. Raises DataError where
    there is none."""
    labels: set[str] = set()
    for where, record in records:
        try:
            label = read_label(record.get("label"))
        except RecordError as error:
            raise error.at(where) from None
        labels |= set() if label is None else {label}
    if not labels:
        raise DataError("no line has a label: there is none to learn")
    return sorted(labels)


def write_labels(folder: Path, labels: Any) -> None:
    """Writes the labels, in their order, to `labels.json` in the folder of a run."""
    with write_atomic(folder / LABELS) as stream:
        stream.write(json.dumps(labels, ensure_ascii=False).encode() + b"\n")


def read_labels(folder: Path | None) -> list[str]:
    """What `write_labels` wrote; an empty list without a folder. Raises SettingsError."""
    return read_json(list[str], folder / LABELS) if folder else []


def label_ids(labels: Sequence[str]) -> dict[str, int]:
    """The number of each label: its place in `labels`, from 0."""
    return {label: index for index, label in enumerate(labels)}


def unknown_label(label: str, known: Sequence[str], name: str = "label") -> RecordError:
    """The error for a label that training had not."""
    shown = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    got = f'"{label}"{did_you_mean(label, known)}'
    return RecordError(
        f'field "{name}": expected a label of the training data ({shown}), got {got}',
        hint="where a tenth of the data is kept for evaluation "
        "a rare label can end up there alone: give --dev",
    )
