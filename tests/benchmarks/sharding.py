"""Many files by `nlpkit predict --out`: overhead against the filter, and killed workers.

    python tests/benchmarks/sharding.py --run RUN --data LINES.jsonl [--engine ray] [--kills 20]

The lines are cut to 200 files. Measured are the filter on all lines, then the files by one worker
and by two, and by two of which one is killed (SIGKILL) so many times, at random moments. After each,
the outputs in the order of the files must be the filter's output, byte for byte. The overhead is
told by the clock, without what a start takes (a job of one line), and by the time of the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

NLPKIT = [sys.executable, "-m", "cli.main", "predict"]
TITLES = (b"ray::ShardWorker", b"multiprocessing.forkserver")


def timed(command: list[str], output: Path | None = None) -> float:
    """Seconds of the clock that a command takes."""
    started = time.perf_counter()
    with open(output or os.devnull, "wb") as stream:
        subprocess.run(command, stdout=stream, check=True)
    return round(time.perf_counter() - started, 1)


def overhead(run: str, data: str, files: list[str], out: Path) -> dict[str, float]:
    """Seconds of processor time, in this process, of the filter on all lines and of a worker on the
    files, in turns; and how much more the worker takes."""
    from nlpkit.inference.filter import Filter
    from nlpkit.inference.opening import Opening
    from nlpkit.inference.shards.shard import ShardJob, ShardWorker, check_files
    from nlpkit.jsonl import read_lines

    opening = Opening(run, "cpu")
    predictor = opening.predictor()
    spent = {"filter": 0.0, "worker": 0.0}
    for turn in range(3):
        job = ShardJob(opening, str(out / str(turn)), "")
        check_files(job, files)
        worker = ShardWorker(job)
        worker.do(files[0])  # loads the run
        started = time.process_time()
        for _ in Filter(predictor)(read_lines(data)):
            pass
        between = time.process_time()
        for file in files[1:]:
            worker.do(file)
        if turn:  # the first warms up
            spent["filter"] += between - started
            spent["worker"] += time.process_time() - between
    more = spent["worker"] / spent["filter"] - 1
    return {**{name: round(value, 1) for name, value in spent.items()}, "more": round(more, 3)}


def parent_of(process: str) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]


def workers_below(driver: int) -> list[int]:
    """The workers that descend from a process: those of Ray, or forks of a fork server."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            title = (place / "cmdline").read_bytes()
            parents = [place.name]
            while parents[-1] not in ("0", "1", str(driver)):
                parents.append(parent_of(parents[-1]))
            is_fork = TITLES[1] in (Path("/proc") / parents[1] / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        is_worker = TITLES[0] in title or (TITLES[1] in title and is_fork)
        if is_worker and parents[-1] == str(driver):
            found.append(int(place.name))
    return found


def kill_some(command: list[str], kills: int) -> dict[str, Any]:
    """Runs the command and kills a worker of it now and then."""
    drawn = random.Random(1)
    killed = 0
    started = time.perf_counter()
    driver = subprocess.Popen(command)
    ended = threading.Event()
    threading.Thread(target=lambda: (driver.wait(), ended.set())).start()
    while not ended.wait(drawn.uniform(1.0, 5.0)):
        workers = workers_below(driver.pid)
        if workers and killed < kills:
            os.kill(drawn.choice(workers), signal.SIGKILL)
            killed += 1
    assert driver.returncode == 0
    return {"kills": killed, "seconds": round(time.perf_counter() - started, 1)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--engine", default="processes")
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    lines = Path(arguments.data).read_bytes().splitlines(keepends=True)
    (folder / "in").mkdir()
    files = [str(folder / "in" / f"part-{number:04}.jsonl") for number in range(arguments.files)]
    for number, file in enumerate(files):
        first = number * len(lines) // len(files)
        Path(file).write_bytes(b"".join(lines[first : (number + 1) * len(lines) // len(files)]))
    one = folder / "one.jsonl"
    one.write_bytes(lines[0])
    expected = folder / "expected.jsonl"

    def command(out: str, workers: int, given: list[str]) -> list[str]:
        flags = ["--out", str(folder / out), "--workers", str(workers)]
        return [*NLPKIT, arguments.run, *given, *flags, "--engine", arguments.engine]

    report: dict[str, Any] = {"lines": len(lines), "files": len(files)}
    report["filter"] = timed([*NLPKIT, arguments.run, arguments.data], expected)
    report["filter_start"] = timed([*NLPKIT, arguments.run, str(one)])
    report["start"] = timed(command("start", 1, [str(one)]))
    for workers in (1, 2):
        report[f"workers_{workers}"] = timed(command(f"by_{workers}", workers, files))
    report["again"] = timed(command("by_2", 2, files))
    report["killed"] = kill_some(command("killed", 2, files), arguments.kills)
    for out in ("by_1", "by_2", "killed"):
        found = b"".join((folder / out / Path(file).name).read_bytes() for file in files)
        assert found == expected.read_bytes(), out
    alone = report["filter"] - report["filter_start"]
    report["overhead_of_the_clock"] = round((report["workers_1"] - report["start"]) / alone - 1, 3)
    report["processor_time"] = overhead(arguments.run, arguments.data, files, folder / "here")
    print(json.dumps(report, indent=1))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
