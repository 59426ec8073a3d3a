"""CCKS2019 and CCKS2020 entity linking to `entity_linking`: short texts and the entities that are
named in them.

    in   {"text_id": "7", "text": "许蓁写了雾灯", "mention_data": [{"kb_id": "19", "mention": "雾灯",
          "offset": "4"}]}
    out  {"text_id": "7", "text": "许蓁写了雾灯", "mentions": [{"start": 4, "end": 6, "entity": "19"}]}

`kb_id` is `NIL`, or `NIL_` and a type (2020), where the knowledge base has no such entity: `entity`
is null then. An offset that is not where its mention stands is an error. Other fields are kept, and
a test line without `mention_data` passes without gold. The knowledge base, `kb_data`, is read by
`entity_linking` as it is.

Source: https://www.biendata.xyz/competition/ccks_2019_el/ (train.json), /ccks_2020_el/
(train.json).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from data_recipes import Record, convert_each, field, has_gold, run
from nlpkit.errors import RecordError


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The lines of the raw files (none, or `-`, is stdin) as `entity_linking` records, in order.

    Raises DataError with `file:line` at the first bad line.
    """
    return convert_each(paths, _record)


def _record(raw: Record) -> Record:
    text = field(raw, "text", str)
    record = {name: value for name, value in raw.items() if name != "mention_data"}
    if has_gold(raw, "mention_data"):
        mentions = [_mention(text, mention) for mention in field(raw, "mention_data", list)]
        record["mentions"] = sorted(
            mentions, key=lambda mention: (mention["start"], mention["end"])
        )
    return record


def _mention(text: str, raw: Any) -> Record:
    """A mention by its place, checked against the text."""
    string, id_ = field(raw, "mention", str), field(raw, "kb_id", str)
    offset = raw.get("offset")
    if isinstance(offset, bool) or not str(offset).isdecimal():
        raise RecordError(f'offset of "{string}": expected a number of characters, got {offset!r}')
    start = int(str(offset))
    end = start + len(string)
    if text[start:end] != string or not string:
        raise RecordError(f'offset {start} is "{text[start:end]}" in the text: expected "{string}"')
    return {
        "start": start,
        "end": end,
        "entity": None if id_ == "NIL" or id_.startswith("NIL_") else id_,
    }


if __name__ == "__main__":
    sys.exit(run(convert))
