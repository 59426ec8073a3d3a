"""What a report is made of, before it is HTML or Markdown: sections of tables, figures and marked
texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows of cells under a head; cells are shown as they are."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Series:
    """A line of a figure; `low` and `high` are the ends of intervals around y, where it has
    some."""

    name: str
    x: Sequence[Any]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Figure:
    """A chart, and the sentence that says what it shows.

    `kind` is "lines", or "bars" where x are names; `diagonal` draws y = x; `marked` are points
    (x, y, name).
    """

    caption: str
    x_name: str
    y_name: str
    series: Sequence[Series]
    kind: str = "lines"
    diagonal: bool = False
    marked: Sequence[tuple[float, float, str]] = ()


@dataclass(frozen=True)
class Mark:
    """A span [start, end) of a text in characters: "right", "missed" or "extra", and its type."""

    start: int
    end: int
    verdict: str
    label: str


@dataclass(frozen=True)
class Shown:
    """A line with errors: its place, its text with marks, the facts that are no spans (verdict,
    words), and what else the model proposed."""

    where: str
    text: str
    marks: Sequence[Mark]
    facts: Sequence[tuple[str, str]] = ()
    beams: Sequence[str] = ()


@dataclass(frozen=True)
class Texts:
    """Lines with errors."""

    lines: Sequence[Shown]


Block = Table | Figure | Texts


@dataclass(frozen=True)
class Section:
    """A heading, a sentence or two, and what stands below."""

    title: str
    note: str = ""
    blocks: list[Block] = field(default_factory=list)
