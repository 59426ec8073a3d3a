"""How long whole commands take, of which most is imports.

    python tests/benchmarks/start.py --run RUN --line ONE_LINE.jsonl

The commands take turns; told are medians of the seconds from start to end, of those of the
processor, which other programs disturb less, and what a command takes beside `import torch`.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time


def seconds(command: list[str]) -> tuple[float, float]:
    """(from start to end, of the processor) of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    user = after.ru_utime - before.ru_utime
    return wall, user + after.ru_stime - before.ru_stime


def main() -> None:
    """Runs and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", action="append", required=True, help="may be repeated")
    parser.add_argument("--line", required=True, help="a file with one line for every run")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    nlpkit = [sys.executable, "-m", "cli.main"]
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "nlpkit --help": [*nlpkit, "--help"],
        "import torch": [sys.executable, "-c", "import torch"],
    }
    for run in options.run:
        commands[f"predict {run}"] = [*nlpkit, "predict", run, options.line]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for command in commands.values():
        seconds(command)  # files come into the memory of the system
    for _ in range(options.repeats):
        for name, command in commands.items():
            found[name].append(seconds(command))
    median = {}
    for name, pairs in found.items():
        walls, cpus = zip(*pairs, strict=True)
        median[name] = statistics.median(walls), statistics.median(cpus)
    torchs = median["import torch"][1]
    print("| command | seconds | of the processor | to torch's |\n|---|---|---|---|")
    for name, (wall, cpu) in median.items():
        print(f"| `{name}` | {wall:.2f} | {cpu:.2f} | {cpu / torchs:.2f} |")


if __name__ == "__main__":
    main()
