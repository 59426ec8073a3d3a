"""KgCLUE to `kgclue`: one-hop questions with the triple that answers them.

    in   {"id": 7, "question": "云泽有多大？", "answer": "云泽（湖泊） ||| 面积 ||| 30平方千米"}
    out  {"id": 7, "question": "云泽有多大？", "answer": "云泽（湖泊） ||| 面积 ||| 30平方千米"}

The parts of the answer are checked, and the space around them made one. Other fields are kept, and
a test line without `answer` passes without gold. The knowledge base of the data set (a triple a
line, tabs between) is read as it is.

Source: https://github.com/CLUEbenchmark/KgCLUE (train.json, dev.json, test_public.json;
Knowledge_20211215.txt).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from data_recipes import Record, convert_each, field, has_gold, run
from nlpkit.errors import RecordError


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The lines of the raw files (none, or `-`, is stdin) as `kgclue` records, in order.

    Raises DataError with `file:line` at the first line that is not KgCLUE.
    """
    return convert_each(paths, _record)


def answer_of(text: str) -> str:
    """An answer with its parts parted alike. Raises RecordError where it has not three."""
    parts = [part.strip() for part in text.split("|||", 2)]
    if len(parts) != 3 or not all(parts):
        raise RecordError(f'expected "subject ||| predicate ||| object", got {text!r}')
    return " ||| ".join(parts)


def _record(raw: Record) -> Record:
    field(raw, "question", str)
    return (
        {**raw, "answer": answer_of(field(raw, "answer", str))} if has_gold(raw, "answer") else raw
    )


if __name__ == "__main__":
    sys.exit(run(convert))
