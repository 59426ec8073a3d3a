"""Texts per second and memory of entity linking, with the knowledge base of a run and with a
million entities.

    python tests/benchmarks/linking_speed.py --run RUN --kb kb_data --data dev.json --entities 0 1000000

For each number the knowledge base is that of --kb, filled up with made-up entities (0: as it is);
it is built, and the texts are linked, each in a process of its own. The run's model stays; link statistics
are counted on --data, which matters for no timing. Prints a JSON line for each: seconds and peak
memory of building, bytes on disk, milliseconds to open, microseconds to look up a text, texts per
second of the filter of `predict` (the model loaded before), and its peak memory, in MiB. `base_mib`
is that of the process with the model and without a knowledge base.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path


def made_up(count: int, first: int) -> Iterator[dict]:
    """Entities of invented names; some share a name."""
    from nlpkit.samples._world import World

    world = World("linking_speed")
    draws = [
        world.person,
        world.book,
        world.firm,
        world.school,
        lambda: world.book() + world.place(),
    ]
    for number in range(first, first + count):
        name = draws[number % len(draws)]()
        facts = [("作者", world.person()), ("出生地", world.place()), ("成立时间", world.date())][
            : 1 + number % 3
        ]
        data = [{"predicate": predicate, "object": object_} for predicate, object_ in facts]
        yield {
            "alias": [name],
            "subject_id": f"x{number}",
            "subject": name,
            "type": ["Thing"],
            "data": data,
        }


def peak_mib() -> float:
    """Peak memory of this process."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def build(kb: Path, data: Path, folder: Path) -> dict:
    """Builds what training builds of a knowledge base."""
    from nlpkit.jsonl import read_jsonl
    from nlpkit.tasks.entity_linking.candidates import prepare_lexicon

    start = time.perf_counter()
    prepare_lexicon(str(kb), list(read_jsonl(data)), folder, 62)
    seconds = round(time.perf_counter() - start, 2)
    return {
        "build_s": seconds,
        "build_mib": peak_mib(),
        "file_mib": round((folder / "kb").stat().st_size / 2**20, 1),
    }


def link(run: Path, data: Path, folder: Path, repeat: int) -> dict:
    """Links the texts with a run's model and the knowledge base of another folder."""
    from nlpkit.inference.filter import Filter
    from nlpkit.inference.predictor import Predictor
    from nlpkit.jsonl import Line, read_lines
    from nlpkit.run import load

    loaded = load(run)
    figures = {"base_mib": peak_mib()}
    start = time.perf_counter()
    task = type(loaded.task)(
        replace(loaded.task.config, kb="", kb_sha256=None), loaded.tokenizer, folder
    )
    task.lexicon.kb.matches("开")
    figures |= {
        "open_ms": round(1000 * (time.perf_counter() - start), 1),
        "entities": len(task.lexicon.kb),
    }
    lines = [Line("x:1", 1, line.raw) for line in read_lines(data)] * repeat
    texts = [line.record()["text"] for line in lines]
    start = time.perf_counter()
    found = sum(len(task.lexicon.kb.matches(text)) for text in texts)
    figures["look_up_us"] = round(1e6 * (time.perf_counter() - start) / len(texts), 1)
    figures["matches_per_text"] = round(found / len(texts), 2)
    list(Filter(Predictor(task, loaded.model))(iter(lines[:64])))  # jieba's dictionary is read once
    start = time.perf_counter()
    bytes_out = sum(map(len, Filter(Predictor(task, loaded.model))(iter(lines))))
    figures["texts_per_s"] = round(len(lines) / (time.perf_counter() - start), 1)
    return {**figures, "bytes_out": bytes_out, "peak_mib": peak_mib()}


def main() -> None:
    """Reads the arguments; prints a line for each size of knowledge base."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--kb", type=Path, required=True, help="JSON lines")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--entities", type=int, nargs="+", default=[0, 1_000_000])
    parser.add_argument("--repeat", type=int, default=1, help="times that the texts are linked")
    parser.add_argument("--step", choices=["build", "link"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step == "build":
        print(json.dumps(build(arguments.kb, arguments.data, arguments.folder)))
    elif arguments.step == "link":
        print(json.dumps(link(arguments.run, arguments.data, arguments.folder, arguments.repeat)))
    else:
        for count in arguments.entities:
            print(json.dumps(measure(arguments, count)), flush=True)


def measure(arguments: argparse.Namespace, count: int) -> dict:
    """One size, in two processes of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = arguments.kb.read_bytes().splitlines(keepends=True)
        with open(folder / "kb.jsonl", "wb") as stream:
            stream.writelines(own)
            more = made_up(max(0, count - len(own)), len(own))
            stream.writelines(
                json.dumps(entity, ensure_ascii=False).encode() + b"\n" for entity in more
            )
        figures: dict = {}
        for step in ("build", "link"):
            command = [
                sys.executable,
                __file__,
                "--run",
                arguments.run,
                "--kb",
                folder / "kb.jsonl",
            ]
            command += [
                "--data",
                arguments.data,
                "--folder",
                folder,
                "--repeat",
                arguments.repeat,
                "--step",
                step,
            ]
            done = subprocess.run([str(part) for part in command], capture_output=True, check=True)
            figures |= json.loads(done.stdout)
        return figures


if __name__ == "__main__":
    main()
