"""Ape210K to `ape210k`: math word problems with their equations and answers.

    in   {"id": "7", "segmented_text": "3 个 5 是 多 少 ？", "original_text": "3个5是多少？",
          "equation": "x=3*5", "ans": "15"}
    out  {"id": "7", "text": "3个5是多少？", "equation": "x=3*5", "answer": "15"}

Only names of fields change and `segmented_text` goes; other fields are kept. Every line stays, also
one whose equation does not give its answer (1 of the 5,000 of the valid set): training passes over
it, but it counts when scoring. `nlpkit data check ape210k` names and counts such lines. A line
without equation passes without gold.

A unit behind an equation or an answer, as some copies of Math23K have it (`x=3*5千米`), is moved to
the field `unit`; such lines are counted.

Source: https://github.com/Chenny0808/ape210k (train.ape.json, valid.ape.json, test.ape.json);
arxiv.org/abs/2009.11506.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from data_recipes import Record, convert_each, counting, field, has_gold, run

NAMES = {"original_text": "text", "ans": "answer"}
UNIT = re.compile(r"(?<=[\d)\]%])\s*[（(]?([^\W\d_]+[²³]?|℃|元/[^\W\d_]+)[)）]?\s*$")
"""Letters behind the last number or bracket of an equation, perhaps in brackets of their own."""


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The lines of the raw files (none, or `-`, is stdin) as `ape210k` records, in order.

    Raises DataError with `file:line` at the first bad line.
    """
    with counting() as counts:
        yield from convert_each(paths, _record, counts)


def _record(raw: Record, counts: Counter[str]) -> Record:
    field(raw, "original_text", str)
    record = {
        NAMES.get(name, name): value for name, value in raw.items() if name != "segmented_text"
    }
    if has_gold(raw, "equation"):
        field(raw, "ans", str)
        equation, unit = _parted(field(raw, "equation", str))
        answer, unit_of_answer = _parted(record["answer"])
        record |= {"equation": equation, "answer": answer}
        if unit or unit_of_answer:
            counts["equations or answers with a unit: it goes to the field unit"] += 1
            record["unit"] = unit or unit_of_answer
    return record


def _parted(text: str) -> tuple[str, str]:
    """An equation and the unit behind it, empty where there is none."""
    match = UNIT.search(text)
    return (text[: match.start()], match[1]) if match else (text, "")


if __name__ == "__main__":
    sys.exit(run(convert))
