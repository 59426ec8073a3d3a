"""Speed of generation: nlpkit against transformers and bert4torch, the same model and the same
search in every way.

    python tests/benchmarks/generation_speed.py --peer-python PEER/bin/python
    python tests/benchmarks/generation_speed.py --part kgclue --kb KB --data DEV --run RUN --peer-python PEER/bin/python

A part is a module beside this one with `prepare(folder, arguments)`, its ways (`OWN`, and `PEERS`
by the interpreter of the peer), pairs of ways to compare (`EQUAL` in what they write, `RATIOS` in
speed), `LENGTHS` that all results are to have, and `command(way, folder, arguments)`: what measures
one way, in a process of its own, and prints `{"problems_per_second": ..., "written": [...]}`. Ways
take turns, medians over the turns are compared. `PEER` is a virtual environment with torch and
bert4torch; without it its ways are left out. Run it on an idle machine. One JSON line a
measurement, then one with the ratios of each length.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

PARTS = ["equations", "kgclue"]


def measure(part: Any, way: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One measurement, without what was written on the terminal."""
    done = subprocess.run(part.command(way, folder, arguments), stdout=subprocess.PIPE, check=True)
    figures = json.loads(done.stdout)
    shown = {name: value for name, value in figures.items() if name != "written"}
    print(json.dumps({"way": way, "tokens": arguments.tokens, **shown}), flush=True)
    return figures


def compare(part: Any, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of speed, their ratios, and how many results are equal where they must be."""
    ways = [*part.OWN, *(part.PEERS if arguments.peer_python else [])]
    ways = [way for way in ways if way in (arguments.ways or ways)]
    turns = [
        {way: measure(part, way, folder, arguments) for way in ways}
        for _ in range(arguments.repeats)
    ]
    summary: dict[str, Any] = {"tokens": arguments.tokens}
    for name in [name for name in turns[0][ways[0]] if name.endswith("_per_second")]:
        speed = {
            way: statistics.median(turn[way][name] for turn in turns)
            for way in ways
            if name in turns[0][way]
        }
        pairs = [(one, other) for one, other in part.RATIOS if {one, other} <= speed.keys()]
        ratios = {f"{one} / {other}": round(speed[one] / speed[other], 3) for one, other in pairs}
        summary[name] = {**speed, "ratios": ratios}
    summary["equal"] = {}
    for one, other in [pair for pair in part.EQUAL if set(pair) <= set(ways)]:
        written = list(zip(turns[0][one]["written"], turns[0][other]["written"], strict=False))
        summary["equal"][f"{one} = {other}"] = (
            f"{sum(a == b for a, b in written)} of {len(written)}"
        )
    return summary


def main() -> None:
    """Takes turns and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, default=PARTS[0])
    parser.add_argument("--ways", nargs="*", help="only these")
    parser.add_argument(
        "--lengths", type=int, nargs="*", help="tokens of every result, of `equations`; 9 and 64"
    )
    parser.add_argument("--kb", help="of `kgclue`: triples, or a .trie of them")
    parser.add_argument("--data", help="of `kgclue`: questions")
    parser.add_argument(
        "--run", help="of `kgclue`: a run with a BERT; without it the weights are random"
    )
    parser.add_argument("--problems", type=int, default=256)
    parser.add_argument("--peer-problems", type=int, default=16)
    parser.add_argument("--peer-python", help="interpreter with bert4torch")
    parser.add_argument("--python", default=sys.executable, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    part = importlib.import_module(f"generation_{arguments.part}")
    with tempfile.TemporaryDirectory() as folder:
        part.prepare(Path(folder), arguments)
        for tokens in arguments.lengths or part.LENGTHS:
            arguments.tokens = tokens
            print(json.dumps(compare(part, Path(folder), arguments)), flush=True)


if __name__ == "__main__":
    main()
