"""The Chinese STS-B to `similarity`: pairs of sentences, with a grade from 0 to 5 of likeness.

    in   有人在骑马<tab>一个人骑着马<tab>4
    out  {"text_a": "有人在骑马", "text_b": "一个人骑着马", "label": 4}

Source: https://github.com/pluto-junzeng/CNSD; Cer et al. 2017, aclanthology.org/S17-2001.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from data_recipes import Record, run
from data_recipes._pairs import pairs_of


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The pairs of the raw files (none, or `-`, is stdin), in order.

    Raises DataError with the file and the line at the first one that is not in the format.
    """
    return pairs_of(paths, grades=True)


if __name__ == "__main__":
    sys.exit(run(convert))
