"""Lines in windows: lists of them that are bounded in number and in bytes, read ahead by a thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from nlpkit.jsonl import Line

WINDOW = 1024  # lines that are sorted by length together
WINDOW_BYTES = 2**21  # or fewer, where they are long
WAIT = 0.2  # seconds after its first line when a window goes out, full or not


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


def windows_ahead(lines: Iterable[Line], size: int) -> Iterator[list[Any]]:
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
