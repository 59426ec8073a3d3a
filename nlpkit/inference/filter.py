"""The filter of `predict`: lines in, the same lines out with `prediction` added.

Memory grows neither with the input nor with the length of its lines: a window of lines, bounded in
number and bytes, is read, cut to the encoder's length, sorted
by length, decoded in batches, merged and written in the order it came.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from nlpkit.errors import DataError, RecordError
from nlpkit.inference.predictor import Outcome, Predictor
from nlpkit.jsonl import Line, dumps, with_field

WINDOW = 1024  # lines that are sorted by length together
WINDOW_BYTES = 2**21  # or fewer, where they are long
WAIT = 0.2  # seconds after its first line when a window goes out, full or not

OnError = Literal["fail", "skip", "emit"]
Read = tuple[Line, dict[str, Any], Outcome]  # a line, its object, what is known of its prediction


@dataclass
class Filter:
    """The filter of `predict`. After it ran, `skipped` counts lines that gave no prediction, `cut`
    texts cut short."""

    predictor: Predictor
    on_error: OnError = "fail"
    only_output: bool = False
    unbuffered: bool = False
    on_skip: Callable[[DataError], None] = lambda error: None
    lines: int = 0
    skipped: int = 0
    cut: int = 0

    def __call__(self, lines: Iterable[Line]) -> Iterator[bytes]:
        """Output lines, without line ends, in the order of the input; a chunk of bytes holds one or
        more.

        Raises DataError at the first bad line under on_error="fail". Whatever error ends it, the
        output of all lines before comes first.
        """
        for window in _windows(lines, 1 if self.unbuffered else WINDOW):
            broken = window.pop() if isinstance(window[-1], Exception) else None
            outputs, failure = self._window(window)
            if outputs:
                yield b"\n".join(outputs) + b"\n"
            error = failure or broken
            if error:
                raise error

    def _window(self, window: list[Line]) -> tuple[list[bytes], Exception | None]:
        """The outputs of the lines, up to the one that ends the filter, and the error that does."""
        read: list[Read] = []
        failure: Exception | None = None
        for line in window:
            self.lines += 1
            try:
                read.append(self._read(line))
            except Exception as error:  # noqa: BLE001 - it is raised when the lines before are out
                failure = error
                break
        outcomes, broken = self._finish([outcome for _, _, outcome in read])
        outputs = []
        for (line, record, _), outcome in zip(read, outcomes, strict=False):
            output = self._output(line, record, outcome)
            if output is not None:
                outputs.append(output)
        return outputs, broken or failure

    def _read(self, line: Line) -> Read:
        """Raises DataError under on_error="fail"."""
        record: dict[str, Any] = {}
        try:
            record = line.record()
            outcome = self.predictor.read(line.number, record)
        except RecordError as error:
            outcome = Outcome(error=error)
        self.cut += outcome.is_cut
        if outcome.error is not None:
            self.skipped += 1
            if self.on_error == "fail":
                raise outcome.error.at(line.where)
        return line, record, outcome

    def _finish(self, read: list[Outcome]) -> tuple[list[Outcome], Exception | None]:
        """The outcomes with their predictions. Where an error spoils a batch its records are
        predicted one by one, up to the one that the error belongs to."""
        try:
            return self.predictor.finish(read), None
        except Exception:  # noqa: BLE001 - the one that is to blame raises it again
            finished: list[Outcome] = []
            for outcome in read:
                try:
                    finished += self.predictor.finish([outcome])
                except Exception as error:  # noqa: BLE001 - it is raised when the others are out
                    return finished, error
            return finished, None

    def _output(self, line: Line, record: dict[str, Any], outcome: Outcome) -> bytes | None:
        """A line of output; None for one that is left out."""
        if outcome.error is not None:
            if self.on_error == "emit":
                return dumps({"error": outcome.error.message, "line": line.number})
            self.on_skip(outcome.error.at(line.where))
            return None
        if self.only_output:
            return dumps(outcome.prediction)
        return with_field(line.raw, record, "prediction", outcome.prediction)


def line_windows(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """The lines in lists of up to WINDOW of them, and of WINDOW_BYTES and one line at most."""
    window: list[Line] = []
    window_bytes = 0
    for line in lines:
        window.append(line)
        window_bytes += len(line.raw)
        if len(window) == WINDOW or window_bytes >= WINDOW_BYTES:
            yield window
            window = []
            window_bytes = 0
    if window:
        yield window


def _windows(lines: Iterable[Line], size: int) -> Iterator[list[Any]]:
    """Lists of up to `size` lines, and of WINDOW_BYTES and one line at most. A thread reads ahead; a
    window does not wait longer than WAIT for more.

    An error of the reader comes as the last element.
    """
    ahead = _Ahead(2 * size)
    end = object()

    def read() -> None:
        try:
            for line in lines:
                ahead.put(line, len(line.raw))
        except Exception as error:  # noqa: BLE001 - it is raised again where the lines are used
            ahead.put(error, 0)
        finally:
            ahead.put(end, 0)

    threading.Thread(target=read, daemon=True).start()
    item = None
    while item is not end:
        window: list[Any] = []
        window_bytes = 0
        deadline: float | None = None
        while len(window) < size and window_bytes < WINDOW_BYTES:
            item = ahead.get(deadline)
            if item is None or item is end:
                break
            window.append(item)
            window_bytes += 0 if isinstance(item, Exception) else len(item.raw)
            deadline = deadline or time.monotonic() + WAIT
        if window:
            yield window


class _Ahead:
    """A queue between two threads that is full with `most` items, or with items of WINDOW_BYTES.

    Who puts waits on `room` where it is full, and is woken where half of it is free: a thread that
    is woken for every item costs more than the item. `waits` is set before the queue is looked at
    again, and read after an item is taken, so that no wake is missed.
    """

    def __init__(self, most: int):
        self.most = most
        self.items: queue.SimpleQueue[tuple[Any, int]] = queue.SimpleQueue()
        self.bytes_put = 0
        self.bytes_got = 0
        self.room = threading.Condition()
        self.waits = False

    def put(self, item: Any, size: int) -> None:
        """Waits until there is room; one item has room in any case."""
        if self._holds(self.most, WINDOW_BYTES + 1):
            with self.room:
                self.waits = True
                while self._holds(self.most, WINDOW_BYTES + 1):
                    self.room.wait()
                self.waits = False
        self.bytes_put += size
        self.items.put((item, size))

    def get(self, deadline: float | None) -> Any:
        """The next item, or None where none comes before the deadline, a time of `monotonic`."""
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            item, size = self.items.get(timeout=left)
        except queue.Empty:
            return None
        self.bytes_got += size
        if self.waits and not self._holds(self.most // 2 + 1, WINDOW_BYTES // 2):
            with self.room:
                self.room.notify()
        return item

    def _holds(self, items: int, size: int) -> bool:
        """Whether it has so many items, or any and so many bytes."""
        count = self.items.qsize()
        return count >= items or (count > 0 and self.bytes_put - self.bytes_got >= size)
