"""Exports of Label Studio (JSON, JSON_MIN) to `ner`, `gplinker` and `classification`.

    in   [{"id": 7, "data": {"text": "许蓁写了雾灯"}, "annotations": [{"result": [
           {"id": "a", "type": "labels", "value": {"start": 0, "end": 2, "text": "许蓁",
            "labels": ["人物"]}},
           {"id": "b", "type": "labels", "value": {"start": 4, "end": 6, "text": "雾灯",
            "labels": ["作品"]}},
           {"type": "relation", "from_id": "b", "to_id": "a", "direction": "right",
            "labels": ["作者"]}]}]}]
    out  {"id": 7, "text": "许蓁写了雾灯", "entities": [{"start": 0, "end": 2, "label": "人物"},
          {"start": 4, ...}], "spo_list": [{"subject": "雾灯", "predicate": "作者", "object": "许蓁",
          "subject_type": "作品", ..., "subject_span": [4, 6], "object_span": [0, 2]}]}

    in   [{"id": 8, "text": "许蓁到了", "label": [{"start": 0, "end": 2, "text": "许蓁",
          "labels": ["人物"]}]}]   (JSON_MIN)

A choice becomes `label`. Of several annotations of a text the one marked as ground truth is taken,
or else the first that was not cancelled. What has no place in a record is left out and counted:
further annotations, results of other kinds, relations without a label or an end. Offsets are
checked against the strings; where they count UTF-16 units, as browsers do, they are converted. The
other fields of `data` are kept. A text without annotations passes without gold.

Source: https://labelstud.io/guide/export (JSON, JSON_MIN).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from data_recipes import Record, convert_each, counting, field, has_gold, objects, run
from data_recipes._raw import from_utf16, span_of, without
from data_recipes._relations import NO_CHARACTER, Entity, entity_record, triple
from nlpkit.errors import RecordError, shown


def convert(paths: Sequence[str], *, text: str = "text") -> Iterator[Record]:
    """The texts of the raw files (none, or `-`, is stdin), in order.

    Args:
        paths: raw files.
        text: the field of `data` that holds the text.

    Raises DataError with its place at the first one that is no export of Label Studio.
    """
    with counting() as counts:
        yield from convert_each(paths, _record, text, counts)


def _record(raw: Record, name: str, counts: Counter[str]) -> Record:
    if "data" not in raw:
        return _of_the_short_form(raw, name, counts)
    data = field(raw, "data", dict)
    record: Record = {"id": raw["id"]} if "id" in raw else {}
    record |= {"text": field(data, name, str)} | without(data, name)
    annotation = _annotation(raw, counts)
    if annotation is None:
        counts["texts without an annotation: without gold"] += 1
        return record
    return record | _of_results(record["text"], objects(annotation, "result"), counts)


def _annotation(raw: Record, counts: Counter[str]) -> Record | None:
    """The annotation of a text to go by."""
    name = "annotations" if "annotations" in raw else "completions"
    if name not in raw:
        return None
    valid = [value for value in objects(raw, name) if not value.get("was_cancelled")]
    valid.sort(key=lambda value: not value.get("ground_truth"))
    if len(valid) > 1:
        counts["further annotations of a text: left out"] += len(valid) - 1
    return valid[0] if valid else None


def _of_the_short_form(raw: Record, name: str, counts: Counter[str]) -> Record:
    text = field(raw, name, str)
    record = {"text" if key == name else key: value for key, value in raw.items()}
    if not has_gold(raw, "label"):
        return record
    if isinstance(raw["label"], str):
        return record
    results = [{"type": "labels", "value": value} for value in objects(raw, "label")]
    return without(record, "label") | _of_results(text, results, counts)


def _of_results(text: str, results: Sequence[Record], counts: Counter[str]) -> Record:
    """The entities, the triples and the label that the results of an annotation are."""
    gold: Record = {}
    known: dict[Any, Entity] = {}
    entities: list[Entity] = []
    kinds = Counter(str(result.get("type"))[:40] for result in results)
    for result in results:
        if result.get("type") == "labels":
            found = _entities(text, field(result, "value", dict), counts)
            entities += found
            if found and "id" in result:
                known[str(result["id"])] = found[0]
        elif result.get("type") == "choices":
            gold["label"] = _choice(field(result, "value", dict))
    if kinds["labels"] or not kinds["choices"]:
        gold["entities"] = [entity_record(entity) for entity in entities]
    if kinds["relation"]:
        gold["spo_list"] = list(_triples(text, results, known, counts))
    for kind in kinds.keys() - {"labels", "choices", "relation"}:
        counts[f'results of the kind "{kind}": left out'] += kinds[kind]
    return gold


def _entities(text: str, value: Record, counts: Counter[str]) -> list[Entity]:
    """An entity for every label of a span."""
    start, end = _span(text, value)
    if start == end:
        counts[NO_CHARACTER] += 1
        return []
    labels = field(value, "labels", list) if "labels" in value else []
    if not labels:
        counts["spans without a label: left out"] += 1
    return [Entity(start, end, str(label)) for label in labels]


def _span(text: str, value: Record) -> tuple[int, int]:
    """The span of a result in characters. Raises RecordError where it is not that of its string."""
    string = value.get("text")
    start, end = value.get("start"), value.get("end")
    if string is None:
        return span_of(text, start, end)
    if type(start) is int and type(end) is int:
        for here in ((start, end), from_utf16(text, start, end)):
            if 0 <= here[0] <= here[1] and text[here[0] : here[1]] == string:
                return here
    place = f"[{shown(start)}, {shown(end)})"
    raise RecordError(f"{place} of the text is not {shown(string)}")


def _choice(value: Record) -> str:
    choices = field(value, "choices", list)
    if len(choices) != 1:
        raise RecordError(f"expected one choice, got {shown(choices)}")
    return str(choices[0])


def _triples(
    text: str, results: Sequence[Record], known: dict[Any, Entity], counts: Counter[str]
) -> Iterator[Record]:
    """A triple for every label of a relation; one that goes to the left has its ends exchanged."""
    for result in results:
        if result.get("type") != "relation":
            continue
        ends = [known.get(str(result.get(name))) for name in ("from_id", "to_id")]
        if result.get("direction") == "left":
            ends.reverse()
        subject, object_ = ends
        if subject is None or object_ is None:
            counts["relations one end of which is no entity: left out"] += 1
            continue
        labels = result.get("labels") or []
        if not labels:
            counts["relations without a label: left out"] += 1
        for label in labels:
            yield triple(text, str(label), subject, object_)


if __name__ == "__main__":
    sys.exit(run(convert))
