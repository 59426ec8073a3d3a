"""`--processes`: one command in several processes that share every batch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = (sys.executable, "-m", "cli.main")
"""What starts `nlpkit` once more."""


def launch(device: str, processes: int, *changes: str) -> int:
    """This command in several processes of this machine, with options changed; the exit code.

    `accelerate` reads the place of a process among the others from the environment, as torch's
    launchers set it; these would answer an error of one process with a report of their own, and
    kill a training that is saving after Ctrl-C.
    """
    from nlpkit.inference.devices import resolve_device

    on_cpu = resolve_device(device).type == "cpu"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": processes,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "LOCAL_WORLD_SIZE": processes,
    }
    shared |= {
        "ACCELERATE_USE_CPU": on_cpu,
        "OMP_NUM_THREADS": max(1, (os.cpu_count() or 1) // processes),
    }
    command = [*COMMAND, *sys.argv[1:], "--processes=1", *changes]
    with tempfile.TemporaryDirectory() as folder:
        errors = [Path(folder) / str(rank) for rank in range(processes)]
        started = []
        for rank, path in enumerate(errors):
            places = {
                name: str(value)
                for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()
            }
            with path.open("wb") as stream:
                stderr = (
                    stream if rank else None
                )  # all meet the same errors, and the first tells them
                started.append(
                    subprocess.Popen(command, env={**os.environ, **places}, stderr=stderr)
                )
        failed = wait_for_all(started)
        if failed:  # this one met an error of its own
            sys.stderr.buffer.write(errors[failed].read_bytes())
    return 0 if failed is None else _exit_code(started[failed].returncode)


def wait_for_all(started: list[subprocess.Popen[bytes]]) -> int | None:
    """The number of the process that failed first, or None.

    Where one fails, the others are ended. Ctrl-C reaches all of them anyway; SIGTERM is passed on.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    before_term = signal.signal(signal.SIGTERM, lambda *_: _end(started))
    failed = None
    deadline = float("inf")
    try:
        while any(process.poll() is None for process in started):
            if failed is None:
                failed = _failed(started)
                deadline = (
                    time.monotonic() + 5 if failed is not None else deadline
                )  # they may end by themselves
            if time.monotonic() > deadline:
                _end(started)
            time.sleep(0.1)
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, before_term)
    return _failed(started) if failed is None else failed


def _end(started: list[subprocess.Popen[bytes]]) -> None:
    for process in started:
        process.terminate()


def _failed(started: list[subprocess.Popen[bytes]]) -> int | None:
    """The number of a process that ended with an error."""
    return next((rank for rank, process in enumerate(started) if process.poll()), None)


def _exit_code(code: int) -> int:
    """That of a process, as a shell has it where a signal ended it."""
    return code if code >= 0 else 128 - code
