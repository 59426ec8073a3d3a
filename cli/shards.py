"""`nlpkit predict --out`: many files, by several workers."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cli.output import stdout_to_stderr

if TYPE_CHECKING:
    from nlpkit.inference.opening import Opening
    from nlpkit.inference.shards.shard import Shard

LINE_EVERY = 10.0  # seconds between two lines of progress


def predict_files(
    opening: Opening,
    files: list[str],
    out: Path,
    on_error: Literal["fail", "skip", "emit"],
    only_output: bool,
    workers: int,
    engine: Literal["processes", "ray"],
    address: str | None,
) -> int:
    """Predicts every file to one of its name in the folder; progress goes to stderr, nothing to
    stdout. The exit code."""
    from nlpkit.folder_lock import claimed
    from nlpkit.inference.shards.on_ray import ray_engine
    from nlpkit.inference.shards.processes import by_processes
    from nlpkit.inference.shards.shard import ShardJob, check_files

    spread = ray_engine(address) if engine == "ray" else by_processes
    job = ShardJob(opening, str(out), opening.sha256(), on_error, only_output)
    check_files(job, files)
    with claimed(out, what="prediction"), stdout_to_stderr():
        return follow(spread(job, files, workers), len(files))


def follow(shards: Iterable[Shard], files: int) -> int:
    """Tells of files as they are done; the exit code."""
    started = last = time.monotonic()
    done = old = lines = new_lines = skipped = cut = 0
    for shard in shards:
        done += 1
        old += shard.is_old
        lines += shard.lines
        new_lines += 0 if shard.is_old else shard.lines
        skipped += shard.skipped
        cut += shard.cut
        for message in shard.told:
            print(f"skipped: {message}", file=sys.stderr)
        more = shard.skipped - len(shard.told)
        if shard.told and more:
            print(f"skipped: {more} more lines of {shard.input}", file=sys.stderr)
        if time.monotonic() - last > LINE_EVERY:
            last = time.monotonic()
            speed = new_lines / (last - started)
            print(f"{done} of {files} files, {lines} lines, {speed:.0f} lines/s", file=sys.stderr)
    before = f", {old} of them before" if old else ""
    seconds = time.monotonic() - started
    print(f"{done} files done{before}, {lines} lines, {seconds:.1f} s", file=sys.stderr)
    return told(lines, skipped, cut)


def told(lines: int, skipped: int, cut: int) -> int:
    """Says what some of the lines lack; the exit code."""
    if cut:
        print(f"{cut} of {lines} texts were cut short", file=sys.stderr)
    if skipped:
        print(f"{skipped} of {lines} lines gave no prediction", file=sys.stderr)
    return 4 if skipped else 0
