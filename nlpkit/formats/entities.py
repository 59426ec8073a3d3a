"""Labelled spans as tasks read and write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nlpkit.errors import RecordError, shown
from nlpkit.formats.typed import LARGEST, read_value


@dataclass(frozen=True)
class Entity:
    """A labelled span of characters."""

    start: int
    end: int
    label: str
    text: str
    score: float | None = None


@dataclass(frozen=True)
class Prediction:
    """The entities of a text."""

    entities: list[Entity]


def parse_entities(value: dict[str, Any], text: str | None) -> list[Entity]:
    """The entities of a record, checked against its text where that is given. Raises
    RecordError."""
    entities = value.get("entities")
    if not isinstance(entities, list):
        raise RecordError(f"entities: expected a list, got {type(entities).__name__}")
    return [_parse(entity, f"entities[{index}]", text) for index, entity in enumerate(entities)]


def _parse(entity: Any, where: str, text: str | None) -> Entity:
    if not isinstance(entity, dict):
        raise RecordError(f"{where}: expected an object, got {shown(entity)}")
    start = entity.get("start")
    end = entity.get("end")
    label = entity.get("label")
    if type(start) is not int or type(end) is not int or type(label) is not str:
        raise _wrong_field(entity, where)
    most = LARGEST if text is None else len(text)
    if not 0 <= start < end <= most:
        of = "" if text is None else f" of {len(text)} characters"
        raise RecordError(f"{where}: [{shown(start)}, {shown(end)}) is no span of the text{of}")
    given = entity.get("text")
    if given is not None:
        read_value(str, given, f"{where}.text")
    score = entity.get("score")
    if score is not None:
        read_value(float, score, f"{where}.score")
    string = given if text is None else text[start:end]
    if text is not None and given not in (None, string):
        raise RecordError(f'{where}: the text has "{string}" at [{start}, {end}), not "{given}"')
    return Entity(start, end, label, string or "", score)


def _wrong_field(entity: dict[str, Any], where: str) -> RecordError:
    """The error of the first field that is missing or of another type."""
    for name, kind in (("start", int), ("end", int), ("label", str)):
        if name not in entity:
            return RecordError(f'{where}: missing field "{name}"')
        if type(entity[name]) is not kind:
            break
    return RecordError(f"{where}: {name}: expected {kind.__name__}, got {shown(entity[name])}")
