"""NLPCC-ICCPOL 2016 KBQA to `kgclue`: one-hop questions in a tagged text file.

    in   <question id=1>\t《雾灯》的作者是谁？
         <triple id=1>\t雾灯 ||| 作者 ||| 许蓁
         <answer id=1>\t许蓁
         ==================================================
    out  {"id": 1, "question": "《雾灯》的作者是谁？", "answer": "雾灯 ||| 作者 ||| 许蓁"}

The object is that of the triple. A question without a triple (as in the test data) passes without
gold; one whose triple has an empty part is left out and counted, as 2 of the 14,609 of the training
data are. The knowledge base of the data set is read by `nlpcc_kb`.

Source: http://tcci.ccf.org.cn/conference/2016/pages/page05_evadata.html
(nlpcc-iccpol-2016.kbqa.training-data).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence

from data_recipes import Record, counting, run
from data_recipes._signs import hint_for, recipe_of_line
from nlpkit.errors import DataError, shown
from nlpkit.jsonl import read_lines

PARTED = " ||| "
_TAGGED = re.compile(r"<(question|triple|answer) id=(\d+)>\s*(.*)")


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The questions of the raw files (none, or `-`, is stdin) as `kgclue` records, in order.

    Raises DataError with `file:line` at the first line that is out of place.
    """
    with counting() as counts:
        for path in paths or ["-"]:
            for record in _records(path):
                if record.get("answer", PARTED) == "":
                    counts["questions whose triple has an empty part: left out"] += 1
                else:
                    yield record


def _records(path: str) -> Iterator[Record]:
    """The questions of a file; the answer is empty where a part of the triple is."""
    record: Record = {}
    for line in read_lines(path):
        text = line.text()
        if set(text) == {"="}:
            continue
        found = _TAGGED.fullmatch(text)
        if not found:
            message = 'expected "<question id=...>", "<triple id=...>" or "<answer id=...>"'
            raise DataError(f"{line.where}: {message}", hint_for(recipe_of_line(text)))
        kind = found[1]
        number = int(found[2])
        value = found[3]
        if kind == "question":
            if record:
                yield record
            record = {"id": number, "question": value}
        elif record.get("id") != number:
            raise DataError(f"{line.where}: {kind} {number} without its question")
        elif kind == "triple":
            parts = parts_of(line.where, value)
            record["answer"] = PARTED.join(parts) if all(parts) else ""
    if record:
        yield record


def parts_of(where: str, triple: str) -> list[str]:
    """Subject, predicate and object, which may be empty. Raises DataError where there are fewer."""
    parts = triple.split("|||", 2)
    if len(parts) != 3:
        raise DataError(
            f'{where}: expected "subject ||| predicate ||| object", got {shown(triple)}'
        )
    return [part.strip() for part in parts]


if __name__ == "__main__":
    sys.exit(run(convert))
