"""Files spread over processes of this machine.

A worker that is killed is replaced, and its file is done again. Workers are forks of a process that
has imported torch and used no thread, so that a new one begins at once. They end when the process
that started them does, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess

import torch

from nlpkit.errors import NlpkitError
from nlpkit.inference.shards.shard import TRIES, Shard, ShardJob, ShardWorker, lost


@dataclass
class _Worker:
    process: ForkServerProcess
    connection: Connection
    path: str = ""


def by_processes(job: ShardJob, paths: Sequence[str], workers: int) -> Iterator[Shard]:
    """An `Engine`."""
    waiting = deque(paths)
    tries = dict.fromkeys(paths, 0)
    team: dict[Connection, _Worker] = {}
    failure: Exception | None = None
    try:
        for _ in range(min(workers, len(paths))):
            _begin(_hire(job, workers, team), waiting, tries)
        while team:
            for connection in wait(list(team)):
                assert isinstance(connection, Connection)
                worker = team[connection]
                try:
                    answer = connection.recv()
                except (EOFError, OSError):
                    answer = None
                    _dismiss(team, worker)
                    waiting.append(worker.path)  # last, so that others get done
                    if tries[worker.path] == TRIES:
                        failure = failure or lost(worker.path)
                if isinstance(answer, Shard):
                    yield answer
                elif answer is not None:
                    failure = failure or answer
                if failure is not None or not waiting:
                    if answer is not None:
                        _dismiss(team, worker)
                    continue
                if answer is None:
                    worker = _hire(job, workers, team)
                _begin(worker, waiting, tries)
    finally:
        for worker in list(team.values()):
            _dismiss(team, worker)
    if failure is not None:
        raise failure


def _hire(job: ShardJob, workers: int, team: dict[Connection, _Worker]) -> _Worker:
    """A new worker."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["nlpkit.inference.shards.processes"])
    mine, its = context.Pipe()
    process = context.Process(target=_work, args=(job, workers, its), daemon=True)
    process.start()
    its.close()
    team[mine] = _Worker(process, mine)
    return team[mine]


def _begin(worker: _Worker, waiting: deque[str], tries: dict[str, int]) -> None:
    """Gives a worker the next file."""
    worker.path = waiting.popleft()
    tries[worker.path] += 1
    with contextlib.suppress(OSError):  # it was killed, which its connection tells
        worker.connection.send(worker.path)


def _dismiss(team: dict[Connection, _Worker], worker: _Worker) -> None:
    """Ends a worker, whatever it does."""
    del team[worker.connection]
    worker.process.terminate()
    worker.process.join()
    worker.connection.close()


def _work(job: ShardJob, workers: int, connection: Connection) -> None:
    """A worker: paths come, shards or errors go."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    worker = ShardWorker(job)
    while True:
        try:
            path = connection.recv()
        except EOFError:
            return
        answer: Shard | Exception
        try:
            answer = worker.do(path)
        except NlpkitError as error:
            answer = error
        except Exception as error:  # noqa: BLE001 - it is raised where the files are given out
            answer = RuntimeError(f"{path}: {error!r}\n{traceback.format_exc()}")
        connection.send(answer)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
