"""`--processes`: one command in several processes that share every batch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time


def launch(device: str, processes: int) -> int:
    """This command in several processes of this machine; the exit code.

    `accelerate` reads the place of a process among the others from the environment, as torch's launchers set it; these
    would answer an error of one process with a report of their own, and kill a training that is saving after Ctrl-C.
    """
    from nlpkit.devices import resolve_device

    on_cpu = resolve_device(device).type == "cpu"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": processes}
    shared |= {"ACCELERATE_USE_CPU": on_cpu, "OMP_NUM_THREADS": max(1, (os.cpu_count() or 1) // processes)}
    command = [sys.executable, "-m", "cli.main", *sys.argv[1:], "--processes=1"]
    started = []
    for rank in range(processes):
        environment = {
            **os.environ,
            **{name: str(value) for name, value in shared.items()},
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
        }
        quiet = None if rank == 0 else subprocess.DEVNULL  # they all meet the same errors
        started.append(subprocess.Popen(command, env=environment, stderr=quiet))
    return wait_for_all(started)


def wait_for_all(started: list[subprocess.Popen[bytes]]) -> int:
    """The first exit code that is not 0, or 0. Where one process fails, the others are ended; Ctrl-C is theirs."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while any(process.poll() is None for process in started):
            if any(process.poll() for process in started):
                time.sleep(5)  # the others may be about to end by themselves, with a message
                for process in started:
                    process.terminate()
            time.sleep(0.1)
    finally:
        signal.signal(signal.SIGINT, before)
    return next((process.returncode for process in started if process.returncode), 0)
