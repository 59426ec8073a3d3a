"""AFQMC to `similarity`: pairs of questions to a bank, with label 1 where they ask the same.

    in   怎么还款<tab>如何还钱<tab>1
         {"sentence1": "怎么还款", "sentence2": "如何还钱", "label": "1"}        as CLUE has it
    out  {"text_a": "怎么还款", "text_b": "如何还钱", "label": 1}

Source: https://github.com/CLUEbenchmark/CLUE
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from data_recipes import Record, run
from data_recipes._pairs import pairs_of


def convert(paths: Sequence[str], *, groups: bool = False) -> Iterator[Record]:
    """The pairs of the raw files (none, or `-`, is stdin), in order.

    `groups` gives the sentences of pairs with label 1 instead, each once with its group: those that
    pairs join, directly or through others.

    Raises DataError with the file and the line at the first one that is not in the format.
    """
    return pairs_of(paths, groups=groups)


if __name__ == "__main__":
    sys.exit(run(convert))
