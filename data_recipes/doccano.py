"""Exports of doccano (JSONL) to `ner`, `gplinker` and `classification`.

    in   {"id": 7, "text": "许蓁写了雾灯", "label": [[0, 2, "人物"], [4, 6, "作品"]]}
    out  {"id": 7, "text": "许蓁写了雾灯", "entities": [{"start": 0, "end": 2, "label": "人物"},
          {"start": 4, ...}]}

    in   {"id": 8, "text": "许蓁写了雾灯", "entities": [{"id": 1, "start_offset": 0, "end_offset": 2,
          "label": "人物"}, {"id": 2, ...}],
          "relations": [{"id": 3, "from_id": 2, "to_id": 1, "type": "作者"}]}
    out  {"id": 8, "text": "许蓁写了雾灯", "entities": [...], "spo_list": [{"subject": "雾灯",
          "predicate": "作者", "object": "许蓁", "subject_type": "作品", "object_type": "人物",
          "subject_span": [4, 6], "object_span": [0, 2]}]}

    in   {"id": 9, "text": "水很清", "label": ["好评"]}
    out  {"id": 9, "text": "水很清", "label": "好评"}

doccano counts characters where a project counts grapheme clusters as one, else UTF-16 units, in
which an emoji is two; the export does not say which. With `offsets=utf16` they are converted; texts
in which it makes a difference are counted.

The label field may also be called `labels`, the text `data`. Spans without a character are left
out and counted, as are relations one end of which is no entity. A text with several labels is an
error, since a text has one in `classification`. Other fields are kept.

Source: https://github.com/doccano/doccano (JSONL, JSONL(Relation)).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from data_recipes import Record, convert_each, counting, field, has_gold, objects, run
from data_recipes._raw import from_utf16, span_of, without
from data_recipes._relations import NO_CHARACTER, Entity, entity_record, triple
from nlpkit.errors import RecordError, SettingsError, shown

ASTRAL = (
    "texts with an emoji or another character of two UTF-16 units: "
    "offsets are taken as characters; where doccano counted units say --set offsets=utf16"
)


def convert(paths: Sequence[str], *, offsets: str = "characters") -> Iterator[Record]:
    """The lines of the raw files (none, or `-`, is stdin), in order.

    Args:
        paths: raw files.
        offsets: what they count, `characters` or `utf16` units.

    Raises DataError with `file:line` at the first one that is no export of doccano, SettingsError
    for other `offsets`.
    """
    if offsets not in ("characters", "utf16"):
        raise SettingsError(f'offsets: expected characters or utf16, got "{offsets}"')
    with counting() as counts:
        yield from convert_each(paths, _record, offsets == "utf16", counts)


def _record(raw: Record, is_utf16: bool, counts: Counter[str]) -> Record:
    name = "text" if "text" in raw else "data"
    text = field(raw, name, str)
    if not is_utf16 and not text.isascii() and max(text) > "\uffff":
        counts[ASTRAL] += 1
    others = {"text" if key == name else key: value for key, value in raw.items()}
    if "entities" in raw:
        return without(others, "entities", "relations") | _of_relations(text, raw, is_utf16, counts)
    labels = "labels" if "labels" in raw else "label"
    if not has_gold(raw, labels):
        return others
    return without(others, labels) | _of_labels(text, field(raw, labels, list), is_utf16, counts)


def _of_labels(text: str, labels: list[Any], is_utf16: bool, counts: Counter[str]) -> Record:
    """The spans of a text, or its label where the labels are strings."""
    if labels and isinstance(labels[0], str):
        if len(labels) > 1:
            raise RecordError(f"expected one label, got {shown(labels)}")
        return {"label": labels[0]}
    entities = []
    for value in labels:
        if not isinstance(value, list) or len(value) != 3 or not isinstance(value[2], str):
            raise RecordError(f"expected [start, end, label], got {shown(value)}")
        start, end = _span(text, value[0], value[1], is_utf16)
        if start == end:
            counts[NO_CHARACTER] += 1
            continue
        entities.append(entity_record(Entity(start, end, value[2])))
    return {"entities": entities}


def _of_relations(text: str, raw: Record, is_utf16: bool, counts: Counter[str]) -> Record:
    """The entities of a text and the triples of its relations."""
    known: dict[Any, Entity] = {}
    for value in objects(raw, "entities"):
        start, end = _span(text, value.get("start_offset"), value.get("end_offset"), is_utf16)
        if start == end:
            counts[NO_CHARACTER] += 1
            continue
        known[field(value, "id", int)] = Entity(start, end, field(value, "label", str))
    triples = []
    for value in objects(raw, "relations") if "relations" in raw else []:
        subject = known.get(field(value, "from_id", int))
        object_ = known.get(field(value, "to_id", int))
        if subject is None or object_ is None:
            counts["relations one end of which is no entity: left out"] += 1
            continue
        triples.append(triple(text, field(value, "type", str), subject, object_))
    entities = [entity_record(entity) for entity in known.values()]
    return {"entities": entities} | ({"spo_list": triples} if "relations" in raw else {})


def _span(text: str, start: Any, end: Any, is_utf16: bool) -> tuple[int, int]:
    """A span of doccano's in characters. Raises RecordError where it is no span of the text."""
    if is_utf16 and type(start) is int and type(end) is int:
        start, end = from_utf16(text, start, end)
    return span_of(text, start, end)


if __name__ == "__main__":
    sys.exit(run(convert))
