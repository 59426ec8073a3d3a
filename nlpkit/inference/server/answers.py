"""The lines of one request, through the batches and back in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import anyio
from starlette.types import Receive, Scope, Send

from nlpkit.inference.line_predictor import error_line
from nlpkit.inference.server.batches import Batches, Job
from nlpkit.jsonl import Line

LATE = "no answer in time"


def deliver_to(loop: asyncio.AbstractEventLoop, jobs: Sequence[Job]) -> None:
    """Called in the thread of the batches: wakes the requests, in the loop."""
    wakes = {job.owner for job in jobs}

    def wake_all() -> None:
        for wake in wakes:
            wake.set()

    loop.call_soon_threadsafe(wake_all)


class Answers:
    """The response to a request: its output lines, in order, as they are there.

    A request has at most two batches of lines on their way, so that it neither fills the queue nor
    heaps up output that its client does not take. A client that goes away takes its lines along.

    Args:
        lines: the lines of the request.
        batches: predict them.
        most_line: bytes of a line, at most; a longer one gets an error.
        seconds: in which each answer must come; when one does not, it and all after it get errors.
            A chunk that the client does not take in this time ends the response.
        media_type: of the response.
        at_end: called when all is over.
    """

    def __init__(
        self,
        lines: Iterator[Line],
        batches: Batches,
        most_line: int,
        seconds: float,
        media_type: str,
        at_end: Callable[[], None],
    ):
        self.lines = lines
        self.batches = batches
        self.most_line = most_line
        self.seconds = seconds
        self.media_type = media_type
        self.at_end = at_end
        self.jobs: deque[Job] = deque()
        self.wake = asyncio.Event()
        self.is_late = False
        self.put()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, receive, tasks.cancel_scope)
                await self._send(send)
                tasks.cancel_scope.cancel()
        finally:
            self._drop()
            self.at_end()

    async def _watch(self, receive: Receive, scope: anyio.CancelScope) -> None:
        """Cancels all when the client goes away."""
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _send(self, send: Send) -> None:
        headers = [(b"content-type", self.media_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for chunk in self.chunks():
            with anyio.move_on_after(self.seconds) as limit:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if limit.cancelled_caught:
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def chunks(self) -> AsyncIterator[bytes]:
        """Chunks of whole output lines."""
        while self.put():
            with anyio.move_on_after(self.seconds) as limit:
                while self.jobs[0].answer is None:
                    self.wake.clear()
                    await self.wake.wait()
            if limit.cancelled_caught:
                self._give_up()
            ready = []
            while self.jobs and (answer := self.jobs[0].answer) is not None:
                ready.append(answer)
                self.jobs.popleft()
            yield b"\n".join(ready) + b"\n"

    def put(self) -> bool:
        """Puts as many lines as there is room for; whether any is on its way."""
        while len(self.jobs) < 2 * self.batches.most:
            if self.jobs and not self.batches.has_room():
                break
            line = next(self.lines, None)
            if line is None:
                break
            job = Job(line, self.wake)
            self.jobs.append(job)
            if self.is_late:
                job.answer = error_line(LATE, line.number)
            elif len(line.raw) > self.most_line:
                problem = f"line: expected at most {self.most_line} bytes, got {len(line.raw)}"
                job.answer = error_line(problem, line.number)
            else:
                self.batches.put(job)
        return bool(self.jobs)

    def _give_up(self) -> None:
        self.is_late = True
        self._drop()
        for job in self.jobs:
            job.answer = job.answer or error_line(LATE, job.line.number)

    def _drop(self) -> None:
        for job in self.jobs:
            job.is_dropped = True
