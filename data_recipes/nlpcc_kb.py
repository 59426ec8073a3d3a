"""The knowledge base of NLPCC-ICCPOL 2016 KBQA to that of `kgclue`: a triple a line, tabs between.

    in   雾灯（小说） ||| 作者 ||| 许蓁
    out  雾灯（小说）<tab>作者<tab>许蓁

The output is text, not JSON. Parts are kept as they are but for the space around them, so that they
are the same strings as in the questions of `nlpcc_kbqa`. A tab inside a part becomes a space. Lines
with an empty part and lines that come twice in a row are left out; both are counted.

Source: http://tcci.ccf.org.cn/conference/2016/pages/page05_evadata.html
(nlpcc-iccpol-2016.kbqa.kb).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from data_recipes import counting, run
from data_recipes.nlpcc_kbqa import parts_of
from nlpkit.jsonl import read_lines


def convert(paths: Sequence[str]) -> Iterator[str]:
    """The triples of the raw files (none, or `-`, is stdin) as lines of text, in order.

    Raises DataError with `file:line` at the first line that is no triple.
    """
    last = ""
    with counting() as counts:
        for path in paths or ["-"]:
            for line in read_lines(path):
                parts = parts_of(line.where, line.text())
                if not all(parts):
                    counts["triples with an empty part: left out"] += 1
                    continue
                if any("\t" in part for part in parts):
                    counts["triples with a tab in a part: a space is written"] += 1
                triple = "\t".join(part.replace("\t", " ") for part in parts)
                if triple == last:
                    counts["triples that come twice in a row: written once"] += 1
                    continue
                last = triple
                yield triple


if __name__ == "__main__":
    sys.exit(run(convert))
