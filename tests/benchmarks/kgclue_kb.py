"""What a knowledge base costs: building it, opening it from its triples and from its `.trie`,
looking up, and memory.

    python tests/benchmarks/kgclue_kb.py kb_dense.tsv

    build      the file of triples to a `.trie`, as `nlpkit trie build --task kgclue` does
    tsv        opened as a run does with `--kb kb.tsv`: the same without saving
    first      opened from the `.trie`, which compiles it and leaves that beside it
    again      opened from the `.trie` ever after

Every way is a process of its own; they take turns, medians are told. Memory is that of the process
beyond what it had before: at its peak, and as it stays, of that `mapped` from files, which the
system can take back. Looking up is asking for the objects of 10,000 subjects and predicates of the
file. One JSON line goes to stdout.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

WAYS = ["build", "tsv", "first", "again"]
LOOKED_UP = 10_000


def memory() -> dict[str, float]:
    """Of this process, in MB."""
    found = dict(
        re.findall(r"(VmHWM|VmRSS|RssFile):\s+(\d+)", Path("/proc/self/status").read_text())
    )
    return {
        name: int(found[key]) / 1024
        for name, key in (("peak", "VmHWM"), ("stays", "VmRSS"), ("mapped", "RssFile"))
    }


def measure(way: str, triples: str, trie: Path) -> dict[str, float]:
    """One way, in this process."""
    from nlpkit.decoding.trie import file as trie_file
    from nlpkit.encoders import load_tokenizer
    from nlpkit.tasks.kgclue.knowledge_base import KnowledgeBase, Name, read_triples

    tokenizer = load_tokenizer("tiny")
    wanted = list(islice(read_triples(triples), LOOKED_UP))
    if way == "first":
        trie_file.compiled_path(trie).unlink(missing_ok=True)
    before, started = memory(), time.perf_counter()
    kb = KnowledgeBase.open(trie if way in ("first", "again") else triples, tokenizer)
    if way == "build":
        kb.trie.save(trie)
    opened = time.perf_counter()
    missing = sum(
        triple not in kb.find(Name.of(triple.subject), triple.predicate) for triple in wanted
    )
    if missing:
        raise SystemExit(f"{way}: {missing} of {len(wanted)} triples are not found")
    looked_up = time.perf_counter()
    used = {f"{name}_mb": after - before[name] for name, after in memory().items()}
    microseconds = (looked_up - opened) / len(wanted) * 1e6
    return {"seconds": opened - started, "lookup_us": microseconds, **used, "keys": len(kb.trie)}


def main() -> None:
    """Takes turns and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("triples", help="subject, predicate and object in a line, tabs between")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--trie", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.triples, arguments.trie)))
        return
    with tempfile.TemporaryDirectory() as folder:
        trie, turns = Path(folder) / "kb.trie", []
        for _ in range(arguments.repeats):
            turns.append({way: _child(way, arguments.triples, trie) for way in WAYS})
        size = {
            "trie_mb": trie.stat().st_size / 1e6,
            "compiled_mb": Path(f"{trie}.csr").stat().st_size / 1e6,
        }
    with open(arguments.triples, "rb") as lines:
        summary: dict[str, Any] = {
            "triples": sum(1 for _ in lines),
            "keys": int(turns[0]["again"]["keys"]),
            **size,
        }
    for way in WAYS:
        names = [name for name in turns[0][way] if name != "keys"]
        summary[way] = {
            name: round(statistics.median(turn[way][name] for turn in turns), 2) for name in names
        }
    print(json.dumps(summary))


def _child(way: str, triples: str, trie: Path) -> dict[str, float]:
    command = [sys.executable, __file__, triples, f"--way={way}", f"--trie={trie}"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


if __name__ == "__main__":
    main()
