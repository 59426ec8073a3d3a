"""Labelled spans as tasks read and write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nlpkit.errors import RecordError


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
        raise RecordError(f"{where}: expected an object, got {entity!r}")
    for name, kind in (("start", int), ("end", int), ("label", str)):
        if name not in entity:
            raise RecordError(f'{where}: missing field "{name}"')
        if type(entity[name]) is not kind:
            raise RecordError(f"{where}: {name}: expected {kind.__name__}, got {entity[name]!r}")
    start, end = entity["start"], entity["end"]
    if not 0 <= start < end or (text is not None and end > len(text)):
        of = "" if text is None else f" of {len(text)} characters"
        raise RecordError(f"{where}: [{start}, {end}) is no span of the text{of}")
    string = entity.get("text") if text is None else text[start:end]
    if text is not None and entity.get("text", string) != string:
        raise RecordError(
            f'{where}: the text has "{string}" at [{start}, {end}), not "{entity["text"]}"'
        )
    return Entity(start, end, entity["label"], string or "", entity.get("score"))
