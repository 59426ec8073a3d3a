"""CMeEE (CBLUE) to `ner`: medical texts with entities of nine kinds, one in another too.

    in   {"text": "患儿发热，咳嗽", "entities": [{"start_idx": 2, "end_idx": 3, "type": "sym",
          "entity": "发热"}]}
    out  {"text": "患儿发热，咳嗽", "entities": [{"start": 2, "end": 4, "label": "sym", "text": "发热"}]}

A file is one list, or has an object a line. `end_idx` is the last character, as published; in
copies of the set where it is one more, `entity` shows that. A span that is `entity` neither way is
an error. Other fields are kept, an entity that comes twice is kept once, and a test line without
`entities` passes without gold.

Source: https://tianchi.aliyun.com/cblue (CMeEE_train.json, CMeEE-V2_train.json).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from data_recipes import Record, convert_each, counting, field, has_gold, objects, run
from nlpkit.errors import RecordError, shown


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The texts of the raw files (none, or `-`, is stdin) as `ner` records, in order.

    Raises DataError with its place at the first one that is not CMeEE or whose spans do not fit
    its text.
    """
    with counting() as counts:
        yield from convert_each(paths, _record, counts)


def _record(raw: Record, counts: Counter[str]) -> Record:
    text = field(raw, "text", str)
    if not has_gold(raw, "entities"):
        return raw
    found: list[Record] = []
    for value in objects(raw, "entities"):
        entity = _entity(text, value)
        if entity in found:
            counts["entities that come twice: kept once"] += 1
        else:
            found.append(entity)
    return {**raw, "entities": found}


def _entity(text: str, raw: Record) -> Record:
    """An entity by its half-open span, checked against the text."""
    start = field(raw, "start_idx", int)
    last = field(raw, "end_idx", int)
    label = field(raw, "type", str)
    string = field(raw, "entity", str) if "entity" in raw else text[max(start, 0) : last + 1]
    for end in (last + 1, last):
        if 0 <= start < end <= len(text) and text[start:end] == string:
            return {"start": start, "end": end, "label": label, "text": string}
    raise RecordError(
        f'entity "{string}": the text has {shown(text[max(start, 0) : last + 1])} '
        f"from {start} to {last}"
    )


if __name__ == "__main__":
    sys.exit(run(convert))
