"""Prediction speed of GPLinker: nlpkit and bert4torch, the filter and bare decoding; memory over
long input.

    python tests/benchmarks/prediction_speed.py --run RUN --data duie_dev.jsonl --peer-python PEER/bin/python

`RUN` is a run of gplinker with `--encoder tiny` for the comparison with the peer, which has the
same shape (BERT 4 x 256, or that of `--peer-shape`) and predicts one sentence at a time, as its
example does. Every
measurement is a process of its own; they take turns and medians are compared. The filter's speed is
that of `nlpkit predict` through a pipe without its start: from its first lines to its last. Run it
on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PEER = Path(__file__).parent / "bert4torch_peer.py"


def bare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Batched decoding of examples that are already read, again and again for at least `lines`
    sentences."""
    import torch

    torch.set_num_threads(arguments.threads)
    from nlpkit.inference.predictor import predict_examples
    from nlpkit.inference.windows import WINDOW
    from nlpkit.run import load
    from nlpkit.training.dataset import read_examples, read_records

    run = load(arguments.run, arguments.device)
    examples = read_examples(run.task, read_records([arguments.data]).pairs)
    examples = (examples * (1 + arguments.lines // len(examples)))[: arguments.lines]
    predict_examples(run.task, run.model, examples[:WINDOW], precision=run.precision)
    started = time.perf_counter()
    for first in range(0, len(examples), WINDOW):
        predict_examples(
            run.task, run.model, examples[first : first + WINDOW], precision=run.precision
        )
    return {"sentences_per_second": round(len(examples) / (time.perf_counter() - started), 1)}


def pipe(arguments: argparse.Namespace, lines: int, raw: list[bytes]) -> dict[str, Any]:
    """`nlpkit predict` on `lines` lines through pipes: its speed after the first window, and its
    peak memory."""
    command = [sys.executable, "-m", "cli.main", "predict", arguments.run]
    command += ["--device", arguments.device]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert process.stdin
    assert process.stdout
    if os.fork() == 0:  # the producer, so that neither side waits for the other
        process.stdout.close()
        for index in range(lines):
            process.stdin.write(raw[index % len(raw)])
        process.stdin.close()
        os._exit(0)
    process.stdin.close()
    count, first_count, started, ended = 0, 0, 0.0, 0.0
    while chunk := process.stdout.read1(1 << 20):  # type: ignore[attr-defined]
        count += chunk.count(b"\n")
        ended = (
            time.perf_counter()
        )  # of the last lines, not of the process, which takes a while to leave torch
        if not started and count >= 1024:
            started, first_count = ended, count
    seconds = ended - started
    process.wait()
    assert count == lines
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "sentences_per_second": round((count - first_count) / seconds, 1),
        "peak_rss_mb": round(peak, 1),
    }


def child(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One measurement, in this process."""
    if name == "bare":
        return bare(arguments)
    raw = Path(arguments.data).read_bytes().splitlines(keepends=True)
    if name == "memory":
        raw = [b'{"text": "\xe4\xbb\x96\xe5\x86\x99\xe4\xba\x86\xe4\xb9\xa6"}\n']
    return pipe(arguments, arguments.lines, raw)


def measure(name: str, arguments: argparse.Namespace, lines: int) -> dict[str, Any]:
    """One measurement in a process of its own."""
    shared = ["--data", arguments.data, "--threads", str(arguments.threads)]
    shared += ["--device", arguments.device]
    if name.startswith("bert4torch"):
        mode = name.partition(" ")[2]
        weights = [f"--weights={arguments.peer_weights}-{mode}"] if arguments.peer_weights else []
        command = [
            arguments.peer_python,
            str(PEER),
            "predict",
            "--mode",
            mode,
            "--limit",
            str(arguments.peer_lines),
            "--shape",
            arguments.peer_shape,
            *shared,
            *weights,
        ]
    else:
        command = [
            sys.executable,
            __file__,
            "--child",
            name,
            "--run",
            arguments.run,
            "--lines",
            str(lines),
            *shared,
        ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    figures = {"name": name, "lines": lines, **json.loads(done.stdout)}
    print(json.dumps(figures), flush=True)
    return figures


def main() -> None:
    """Takes turns and prints the medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument(
        "--peer-python", help="interpreter with bert4torch; without it only nlpkit is measured"
    )
    parser.add_argument(
        "--peer-weights",
        help="PREFIX of what `bert4torch_peer.py train --weights PREFIX-MODE` wrote",
    )
    parser.add_argument("--peer-modes", nargs="*", default=["tuned", "example"])
    parser.add_argument("--peer-lines", type=int, default=300)
    parser.add_argument("--peer-shape", default="4x256", help="LAYERSxSIZE of the peer's encoder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lines", type=int, default=8192)
    parser.add_argument("--memory-lines", type=int, nargs="*", default=[10_000, 1_000_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments.child, arguments)))
        return
    names = [
        "bare",
        "pipe",
        *(f"bert4torch {mode}" for mode in arguments.peer_modes if arguments.peer_python),
    ]
    turns = [
        [measure(name, arguments, arguments.lines) for name in names]
        for _ in range(arguments.repeats)
    ]
    speed = {
        n: statistics.median(turn[i]["sentences_per_second"] for turn in turns)
        for i, n in enumerate(names)
    }
    memory = {
        lines: measure("memory", arguments, lines)["peak_rss_mb"]
        for lines in arguments.memory_lines
    }
    summary = {
        "sentences_per_second": speed,
        "pipe_share_of_bare": round(speed["pipe"] / speed["bare"], 3),
        "pipe_faster_than": {name: round(speed["pipe"] / speed[name], 2) for name in names[2:]},
        "peak_rss_mb_by_lines": memory,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
