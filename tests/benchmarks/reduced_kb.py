"""A knowledge base without a share of the entities that texts mean: those mentions are NIL then, in
all files alike.

    python tests/benchmarks/reduced_kb.py --kb kb_data --data train.json dev.json --share 0.15 --seed 1 --out reduced
    nlpkit train entity_linking --data reduced/train.json --dev reduced/dev.json --set entity_linking.kb=reduced/kb_data

Takes CCKS files as they are. A mention of an entity that went gets the `kb_id` NIL; where no other
entity has its name, its name is no alias any more. Prints what was done as JSON.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from nlpkit.jsonl import dumps, read_jsonl, write_atomic


def main() -> None:
    """Reads the arguments and writes the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kb", type=Path, required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--share", type=float, default=0.15)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    meant = {
        m["kb_id"] for _, record in read_jsonl(arguments.data) for m in record["mention_data"]
    } - {"NIL"}
    gone = set(
        random.Random(arguments.seed).sample(sorted(meant), round(arguments.share * len(meant)))
    )
    left = [record for _, record in read_jsonl(arguments.kb) if record["subject_id"] not in gone]
    counts = {"meant": len(meant), "gone": len(gone), "left": len(left)}
    with write_atomic(arguments.out / arguments.kb.name) as stream:
        stream.writelines(dumps(record) + b"\n" for record in left)
    for path in arguments.data:
        records = [record for _, record in read_jsonl(path)]
        with write_atomic(arguments.out / path.name) as stream:
            stream.writelines(dumps(without(record, gone)) + b"\n" for record in records)
        counts[path.name] = sum(
            m["kb_id"] in gone for record in records for m in record["mention_data"]
        )
    print(json.dumps(counts))


def without(record: dict, gone: set[str]) -> dict:
    """The record with NIL in place of the entities that went."""
    mentions = [{**m, "kb_id": "NIL"} if m["kb_id"] in gone else m for m in record["mention_data"]]
    return {**record, "mention_data": mentions}


if __name__ == "__main__":
    main()
