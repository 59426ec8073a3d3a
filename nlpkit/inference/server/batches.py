"""Lines of many callers predicted together: a bounded queue, and one thread that runs the model.

A batch begins with the first line that waits; it takes in what else is there, and what comes within
`wait` seconds, up to as many lines as are decoded together. No lock is held while the model runs:
callers put lines meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nlpkit.inference.line_predictor import LinePredictor, error_line
from nlpkit.jsonl import Line

BATCH_BYTES = 2**19  # of the lines of a batch, so that long ones do not keep the others waiting
FAILED = "internal error"  # what a caller hears of a bug; its traceback is logged
log = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """A line on its way; `answer` is its output line once there is one."""

    line: Line
    owner: Any = None
    """For whoever is to be told of the answer."""
    answer: bytes | None = None
    is_error: bool = False
    is_dropped: bool = False
    """Its caller went away."""


@dataclass
class Counts:
    """What the thread has done; `seconds` of work, not of waiting."""

    lines: int = 0
    errors: int = 0
    batches: int = 0
    seconds: float = 0.0


class Batches:
    """The queue and the thread.

    Args:
        core: predicts.
        capacity: lines that wait, at most; see `has_room`.
        wait: seconds that a batch waits for more lines.
        deliver: called in the thread with jobs that have their answers.
    """

    def __init__(
        self,
        core: LinePredictor,
        capacity: int,
        wait: float,
        deliver: Callable[[Sequence[Job]], None],
    ):
        self.core = core
        self.capacity = capacity
        self.wait = wait
        self.deliver = deliver
        self.counts = Counts()
        self.most = core.predictor.batch_size
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Lines that wait."""
        return len(self._waiting)

    def has_room(self) -> bool:
        """Whether another line may wait. Callers ask before they put one; who has none on its way
        may put one in any case, and so always gets on."""
        return len(self._waiting) < self.capacity

    def is_alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    def seconds_to_wait(self) -> float:
        """How long a line that comes now may wait, from the speed so far."""
        if not self.counts.lines:
            return 1.0
        return len(self) * self.counts.seconds / self.counts.lines

    def put(self, job: Job) -> None:
        """Adds a line."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread when all that waits is done; waits for it."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._take():
            started = time.monotonic()
            self._predict(batch)
            self.counts.seconds += time.monotonic() - started
            self.counts.lines += len(batch)
            self.counts.errors += sum(job.is_error for job in batch)
            self.counts.batches += 1
            self.deliver(batch)

    def _take(self) -> list[Job]:
        """The jobs of the next batch; none when closed and all is done."""
        batch: list[Job] = []
        size = 0
        deadline = None
        with self._changed:
            while len(batch) < self.most and size < BATCH_BYTES:
                if self._waiting:
                    job = self._waiting.popleft()
                    if not job.is_dropped:
                        batch.append(job)
                        size += len(job.line.raw)
                        deadline = deadline or time.monotonic() + self.wait
                    continue
                left = None if deadline is None else deadline - time.monotonic()
                if self._is_closed or (left is not None and left <= 0):
                    break
                self._changed.wait(left)
        return batch

    def _predict(self, batch: list[Job]) -> None:
        """Gives every job its answer, whatever happens."""
        read = []
        places = []
        for job in batch:
            try:
                read.append(self.core.read(job.line))
                places.append(job)
            except Exception as error:  # noqa: BLE001 - it is logged, and the others get theirs
                self._fail(job, error)
        while places:
            finished, failure = self.core.finish(read)
            for job, one in zip(places, finished, strict=False):
                job.answer = self.core.output(one)
                job.is_error = one.outcome.error is not None
            if failure is None:
                return
            done = len(finished)
            self._fail(places[done], failure)
            places = places[done + 1 :]
            read = read[done + 1 :]

    def _fail(self, job: Job, error: Exception) -> None:
        log.error("line %d of a request", job.line.number, exc_info=error)
        job.answer = error_line(FAILED, job.line.number)
        job.is_error = True
