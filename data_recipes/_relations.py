"""Entities by their spans and triples between them, as annotation tools export them."""

from __future__ import annotations

from typing import NamedTuple

from data_recipes._raw import Record

NO_CHARACTER = "spans without a character: left out"


class Entity(NamedTuple):
    """A half-open span of characters with its label."""

    start: int
    end: int
    label: str


def entity_record(entity: Entity) -> Record:
    """An entity as `ner` reads it: its span in characters of the text, half-open, and label."""
    return {"start": entity.start, "end": entity.end, "label": entity.label}


def triple(text: str, predicate: str, subject: Entity, object_: Entity) -> Record:
    """A triple of `gplinker`, its ends as strings of the text, with their types and spans."""
    return {
        "subject": text[subject.start : subject.end],
        "predicate": predicate,
        "object": text[object_.start : object_.end],
        "subject_type": subject.label,
        "object_type": object_.label,
        "subject_span": [subject.start, subject.end],
        "object_span": [object_.start, object_.end],
    }
