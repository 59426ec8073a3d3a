"""What the lines of similarity hold: pairs with a label or grade, or texts with a group.

    {"text_a": "怎么还款", "text_b": "如何还钱", "label": 1}      0 or 1, or a grade, such as 3.8
    {"text": "怎么还款", "group": "还款"}                        a string or a whole number

A file holds one kind. A grade may be 0 or 1 too: labels are those of a file that has no others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from nlpkit.errors import DataError, RecordError, shown
from nlpkit.formats.labels import read_label
from nlpkit.formats.text import read_text
from nlpkit.formats.typed import read_dataclass
from nlpkit.tasks.similarity.settings import Kind
from nlpkit.text.tokenizer import Encoding

SIDES = ("text_a", "text_b")
SAID: dict[Kind, str] = {
    "labels": "pairs with labels 0 and 1",
    "grades": "pairs with grades",
    "groups": "texts with groups",
}


@dataclass(frozen=True)
class Pair:
    """Of two texts: the cosine of their vectors, -1 to 1; and as gold a label or grade, as
    prediction a label or None."""

    score: float | None = None
    label: float | None = None


@dataclass(frozen=True)
class Neighbour:
    """A sentence of the knowledge base, the cosine with it, its line from 1 and its group."""

    text: str
    score: float
    line: int
    group: str | None = None


@dataclass(frozen=True)
class Found:
    """Of a text: the group of the nearest sentence, and the nearest, best first; as gold its group
    alone."""

    group: str | None = None
    nearest: list[Neighbour] = field(default_factory=list)


@dataclass(frozen=True)
class Vector:
    """The vector of a text, of length 1."""

    vector: list[float]


@dataclass(frozen=True)
class VectorPair:
    """The vectors of a pair of texts, of length 1."""

    vector_a: list[float]
    vector_b: list[float]


Prediction = Pair | Found | Vector | VectorPair


@dataclass(frozen=True)
class Example:
    """One text or two, and what is known of them.

    `partner` is another text of the group, drawn in training where the loss compares texts.
    """

    encodings: tuple[Encoding, ...]
    gold: Pair | Found | None
    partner: Encoding | None = None

    def __len__(self) -> int:
        """Tokens of all texts."""
        return sum(map(len, self.texts))

    @property
    def texts(self) -> tuple[Encoding, ...]:
        """The texts with the partner."""
        return self.encodings if self.partner is None else (*self.encodings, self.partner)


def is_pair(record: dict[str, Any]) -> bool:
    """Whether a line holds a pair. Raises RecordError where it holds both a text and a pair."""
    has_side = any(side in record for side in SIDES)
    if has_side and "text" in record:
        raise RecordError('expected "text", or "text_a" and "text_b": got both')
    return has_side


def read_sides(record: dict[str, Any]) -> tuple[str, ...]:
    """The texts of a line, one or two. Raises RecordError, also for an empty side of a pair."""
    if not is_pair(record):
        return (read_text(record),)
    sides = []
    for name in SIDES:
        value = record.get(name)
        if value is None:
            raise RecordError(f'missing field "{name}"')
        if not isinstance(value, str):
            raise RecordError(f'field "{name}": expected a string, got {shown(value)}')
        if not value.strip():
            raise RecordError(f'field "{name}": expected a sentence, got an empty one')
        sides.append(value)
    return tuple(sides)


def read_gold(record: dict[str, Any]) -> Pair | Found | None:
    """The label or grade of a pair, or the group of a text; None where there is none. Raises
    RecordError."""
    if not is_pair(record):
        group = read_label(record.get("group"), "group")
        return None if group is None else Found(group)
    label = record.get("label")
    if label is None:
        return None
    is_number = type(label) in (int, float) and math.isfinite(label)
    if not is_number:
        raise RecordError(
            f'field "label": expected 0, 1 or a grade, which is a number, got {shown(label)}'
        )
    return Pair(label=label)


def kind_of(gold: Pair | Found) -> Kind:
    """The kind of data that the gold of a line alone tells of."""
    if isinstance(gold, Found):
        return "groups"
    return "labels" if gold.label in (0, 1) else "grades"


def refuse_other_kind(gold: Pair | Found, kind: Kind | None) -> None:
    """Raises RecordError where gold is of another kind than `kind`; None takes any."""
    own = kind_of(gold)
    is_grade = kind == "grades" and own == "labels"
    if kind in (None, own) or is_grade:
        return
    assert kind is not None
    got = SAID[own]
    if isinstance(gold, Pair) and own == "grades":
        got = f"the label {gold.label:g}"
    raise RecordError(
        f"expected {SAID[kind]}, got {got}",
        hint=f"to score a run on another kind: --set similarity.kind={own}",
    )


def find_kind(golds: Iterable[tuple[str, Pair | Found | None]]) -> Kind:
    """The kind of data of (place, gold) pairs. Raises DataError, with the place, where texts and
    pairs are mixed, and where there is no gold at all."""
    first: tuple[str, bool] | None = None
    kind: Kind = "labels"
    for where, gold in golds:
        if gold is None:
            continue
        is_text = isinstance(gold, Found)
        first = first or (where, is_text)
        if is_text != first[1]:
            known = "a text with a group" if first[1] else "a pair"
            got = "a text with a group" if is_text else "a pair"
            raise DataError(f"{where}: expected {known}, as at {first[0]}, got {got}")
        if kind_of(gold) != "labels":
            kind = kind_of(gold)
    if first is None:
        raise DataError("no line has a label or a group: there is nothing to learn")
    return kind


def refuse_lonely_groups(golds: Iterable[tuple[str, Pair | Found | None]]) -> list[str]:
    """The groups, sorted. Raises DataError, with the place, for a group of one text: it says
    nothing of what is alike."""
    places: dict[str, list[str]] = {}
    for where, gold in golds:
        if isinstance(gold, Found) and gold.group is not None:
            places.setdefault(gold.group, []).append(where)
    for group, known in places.items():
        if len(known) == 1:
            raise DataError(
                f'{known[0]}: group "{group}" has this text alone: expected two or more',
                hint="nlpkit data convert with groups=true makes groups of pairs that are alike",
            )
    return sorted(places)


def parse_prediction(value: dict[str, Any]) -> Prediction:
    """A prediction, or gold, as found in a file. Raises RecordError."""
    if "vector" in value:
        return read_dataclass(Vector, value)
    if "vector_a" in value or "vector_b" in value:
        return read_dataclass(VectorPair, value)
    if "nearest" in value or "group" in value:
        return read_dataclass(Found, value)
    if "score" in value or "label" in value:
        return read_dataclass(Pair, value)
    raise RecordError('missing field "score"')


def windows_of(example: Example, cut: Any) -> list[Example]:
    """The example in pieces: of a pair the first window of each text together, then the second, and
    so on; the shorter text's last one again. `cut(encoding)` gives the windows of a text."""
    windows = [cut(encoding) for encoding in example.encodings]
    most = max(map(len, windows))
    if most == 1:
        return [example]
    pieces = []
    for number in range(most):
        sides = tuple(some[min(number, len(some) - 1)] for some in windows)
        pieces.append(replace(example, encodings=sides))
    return pieces
