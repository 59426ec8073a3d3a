r"""Triples of news sentences (`sro_list`) to `gplinker`: only names of fields change.

    in   {"text": "许蓁任职云泽船厂\n", "sro_list": [{"subject": "许蓁", "object": "云泽船厂", "relation": "任职"}]}
    out  {"text": "许蓁任职云泽船厂\n", "spo_list": [{"subject": "许蓁", "predicate": "任职",
          "object": "云泽船厂"}]}

The text is kept to the character: nearly half of them end with a line break, which is part of the
text. A test line without `sro_list` passes without gold.

Source: the news relation extraction set with 53 relations, one JSON object a line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from data_recipes import Record, convert_each, field, has_gold, run


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The lines of the raw files (none, or `-`, is stdin) as `gplinker` records, in order; other
    fields are kept.

    Raises DataError with `file:line` at the first bad line.
    """
    return convert_each(paths, _record)


def _record(raw: Record) -> Record:
    field(raw, "text", str)
    record = {name: value for name, value in raw.items() if name != "sro_list"}
    if has_gold(raw, "sro_list"):
        record["spo_list"] = [_triple(triple) for triple in field(raw, "sro_list", list)]
    return record


def _triple(raw: Any) -> Record:
    names = {"subject": "subject", "predicate": "relation", "object": "object"}
    return {name: field(raw, raw_name, str) for name, raw_name in names.items()}


if __name__ == "__main__":
    sys.exit(run(convert))
