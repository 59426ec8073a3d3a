"""The micro-batches of a step are made in a thread while the step before is taken, so that a device
that computes need not wait for the host.

They are a pure function of the number of the step, so that nothing else changes. On a processor
they are made when they are asked for: there the thread would take from the step what it saves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

MicroBatchesOf = Callable[[int], Iterable[Any]]
"""(step, counted from 0) -> its micro-batches; the same ones whenever it is called."""


class Ahead:
    """Those of the step that is asked for, while a thread makes those of the next, up to `steps`.

    A step may ask for its own several times. An error is raised by the step whose batch it is of.
    """

    def __init__(self, micro_batches: MicroBatchesOf, steps: int, pool: ThreadPoolExecutor):
        self.micro_batches = micro_batches
        self.steps = steps
        self.pool = pool
        self.made: dict[int, Future[list[Any]]] = {}

    def __call__(self, step: int) -> list[Any]:
        """The micro-batches of a step."""
        following = [number for number in (step, step + 1) if number < self.steps]
        self.made = {number: self._made(number) for number in following}
        return self.made[step].result()

    def _made(self, step: int) -> Future[list[Any]]:
        if step in self.made:
            return self.made[step]
        return self.pool.submit(lambda: list(self.micro_batches(step)))


def pays(device: Any) -> bool:
    """Whether a step on this device leaves the host time for the next batch."""
    return bool(device.type != "cpu")


@contextmanager
def made_ahead(micro_batches: MicroBatchesOf, steps: int, device: Any) -> Iterator[MicroBatchesOf]:
    """`micro_batches`, made ahead where it pays; the thread ends with the context."""
    if not pays(device):
        yield micro_batches
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        yield Ahead(micro_batches, steps, pool)
    finally:
        pool.shutdown(cancel_futures=True)
