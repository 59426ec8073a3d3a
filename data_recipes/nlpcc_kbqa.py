"""NLPCC-ICCPOL 2016 KBQA to `kgclue`: one-hop questions in a tagged text file.

    in   <question id=1>\t《雾灯》的作者是谁？
         <triple id=1>\t雾灯 ||| 作者 ||| 许蓁
         <answer id=1>\t许蓁
         ==================================================
    out  {"id": 1, "question": "《雾灯》的作者是谁？", "answer": "雾灯 ||| 作者 ||| 许蓁"}

The object is that of the triple. A question without a triple (as in the test data) passes without
gold; one whose triple has an empty part is left out, as 2 of the 14,609 of the training data are.

Source: http://tcci.ccf.org.cn/conference/2016/pages/page05_evadata.html
(nlpcc-iccpol-2016.kbqa.training-data).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence

from data_recipes import Record, run
from nlpkit.errors import DataError
from nlpkit.jsonl import read_lines

_TAGGED = re.compile(r"<(question|triple|answer) id=(\d+)>\s*(.*)")


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The questions of the raw files (none, or `-`, is stdin) as `kgclue` records, in order.

    Raises DataError with `file:line` at the first line that is out of place.
    """
    for path in paths or ["-"]:
        yield from _records(path)


def _records(path: str) -> Iterator[Record]:
    record: Record = {}
    is_whole = True
    for line in read_lines(path):
        text = line.text()
        if set(text) == {"="}:
            continue
        found = _TAGGED.fullmatch(text)
        if not found:
            raise DataError(
                f'{line.where}: expected "<question id=...>", "<triple id=...>" or "<answer id=...>"'
            )
        kind, number, value = found[1], int(found[2]), found[3]
        if kind == "question":
            if record and is_whole:
                yield record
            record, is_whole = {"id": number, "question": value}, True
        elif record.get("id") != number:
            raise DataError(f"{line.where}: {kind} {number} without its question")
        elif kind == "triple":
            parts = value.split("|||", 2)
            if len(parts) != 3:
                raise DataError(
                    f'{line.where}: expected "subject ||| predicate ||| object", got {value!r}'
                )
            parts = [part.strip() for part in parts]
            record["answer"], is_whole = " ||| ".join(parts), all(parts)
    if record and is_whole:
        yield record


if __name__ == "__main__":
    sys.exit(run(convert))
