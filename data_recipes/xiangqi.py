"""Games of Chinese chess as a table to `xiangqi`: a game a line, tabs between four columns.

    in   對局<tab>1-0<tab><tab>h2e2 h9g7 h0g2
    out  {"kind": "對局", "result": "1-0", "moves": ["h2e2", "h9g7", "h0g2"]}

The columns are the kind of game, the result, the start as FEN (empty: the opening position, and no
field `fen`), and the moves in ICCS with spaces between. A line without moves is left out and
counted. Whether moves are legal is not looked at: `nlpkit data check xiangqi` replays the games.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from data_recipes import Record, counting, run
from nlpkit.errors import DataError
from nlpkit.jsonl import read_lines


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The lines of the raw files (none, or `-`, is stdin) as `xiangqi` records, in order.

    Raises DataError with `file:line` at the first line that does not have four columns.
    """
    with counting() as counts:
        for path in paths or ["-"]:
            for line in read_lines(path):
                columns = line.text().split("\t")
                if not 2 <= len(columns) <= 4:
                    raise DataError(
                        f"{line.where}: expected four columns with tabs between, got {len(columns)}"
                    )
                kind, result, fen, moves = [*columns, "", ""][:4]  # empty ones may be cut off
                if not moves.strip():
                    counts["games without moves: left out"] += 1
                    continue
                record: Record = {"kind": kind, "result": result}
                if fen.strip():
                    record["fen"] = fen.strip()
                yield {**record, "moves": moves.split()}


if __name__ == "__main__":
    sys.exit(run(convert))
