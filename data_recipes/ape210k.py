"""Ape210K to `ape210k`: math word problems with their equations and answers.

    in   {"id": "7", "segmented_text": "3 个 5 是 多 少 ？", "original_text": "3个5是多少？", "equation": "x=3*5",
          "ans": "15"}
    out  {"id": "7", "text": "3个5是多少？", "equation": "x=3*5", "answer": "15"}

Only names of fields change and `segmented_text` goes; other fields are kept. Every line stays, also
one whose equation does not give its answer (1 of the 5,000 of the valid set): training passes over
it, but it counts when scoring. `nlpkit data check ape210k` names and counts such lines. A line
without equation passes without gold.

Source: https://github.com/Chenny0808/ape210k (train.ape.json, valid.ape.json, test.ape.json);
arxiv.org/abs/2009.11506.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from data_recipes import Record, convert_each, field, has_gold, run

NAMES = {"original_text": "text", "ans": "answer"}


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The lines of the raw files (none, or `-`, is stdin) as `ape210k` records, in order.

    Raises DataError with `file:line` at the first bad line.
    """
    return convert_each(paths, _record)


def _record(raw: Record) -> Record:
    field(raw, "original_text", str)
    if has_gold(raw, "equation"):
        field(raw, "equation", str)
        field(raw, "ans", str)
    return {NAMES.get(name, name): value for name, value in raw.items() if name != "segmented_text"}


if __name__ == "__main__":
    sys.exit(run(convert))
