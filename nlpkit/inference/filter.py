"""The filter of `predict`: lines in, the same lines out with `prediction` added.

Memory does not grow with the input: a window of lines is read, cut to the encoder's length, sorted
by length, decoded in batches, merged and written in the order it came.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from nlpkit.errors import DataError, RecordError
from nlpkit.inference.predictor import predict_examples
from nlpkit.jsonl import Line, dumps, with_field

WINDOW = 1024  # lines that are sorted by length together
WAIT = 0.2  # seconds after its first line when a window goes out, full or not

OnError = Literal["fail", "skip", "emit"]
Long = Literal["fail", "split", "cut"]


@dataclass
class Filter:
    """The filter of `predict`. After it ran, `skipped` counts lines that gave no prediction, `cut`
    texts cut short."""

    task: Any
    model: torch.nn.Module
    batch_size: int = 64
    precision: str = "fp32"
    on_error: OnError = "fail"
    long: Long = "split"
    only_output: bool = False
    unbuffered: bool = False
    on_skip: Callable[[DataError], None] = lambda error: None
    lines: int = 0
    skipped: int = 0
    cut: int = 0

    def __call__(self, lines: Iterable[Line]) -> Iterator[bytes]:
        """Output lines, without line ends, in the order of the input; a chunk of bytes holds one or
        more.

        Raises DataError at the first bad line under on_error="fail", after the output of all lines
        before it.
        """
        for window in _windows(lines, 1 if self.unbuffered else WINDOW):
            broken = window.pop() if isinstance(window[-1], Exception) else None
            outputs, failed = self._window(window)
            if outputs:
                yield b"\n".join(outputs) + b"\n"
            error = failed or broken
            if error:
                raise error

    def _window(self, window: list[Line]) -> tuple[list[bytes], DataError | None]:
        """Outputs of the lines, up to the first bad one under on_error="fail", and that one's
        error."""
        read: list[tuple[Line, dict[str, Any], Any, list[Any]]] = []
        outputs: list[bytes | None] = []
        failed = None
        for line in window:
            self.lines += 1
            try:
                record = line.record()
                example = self.task.read(record)
                read.append((line, record, example, self._cut(example)))
                outputs.append(None)
            except RecordError as error:
                self.skipped += 1
                if self.on_error == "fail":
                    failed = error.at(line.where)
                    break
                if self.on_error == "emit":
                    outputs.append(dumps({"error": error.message, "line": line.number}))
                else:
                    self.on_skip(error.at(line.where))
        examples, windows = [item[2] for item in read], [item[3] for item in read]
        settings: dict[str, Any] = {"batch_size": self.batch_size, "precision": self.precision}
        predictions = predict_examples(self.task, self.model, examples, windows=windows, **settings)
        done = (
            self._output(line, record, p)
            for (line, record, *_), p in zip(read, predictions, strict=True)
        )
        return [next(done) if output is None else output for output in outputs], failed

    def _cut(self, example: Any) -> list[Any]:
        windows = self.task.windows(example)
        if len(windows) > 1 and self.long == "fail":
            raise RecordError(
                f"too long: {len(example)} tokens, {len(windows[0])} fit",
                hint="--long split or cut",
            )
        if len(windows) > 1 and self.long == "cut":
            self.cut += 1
            return windows[:1]
        return windows

    def _output(self, line: Line, record: dict[str, Any], prediction: Any) -> bytes:
        return (
            dumps(prediction)
            if self.only_output
            else with_field(line.raw, record, "prediction", prediction)
        )


def _windows(lines: Iterable[Line], size: int) -> Iterator[list[Any]]:
    """Lists of up to `size` lines. A thread reads ahead; a window does not wait longer than WAIT
    for more.

    An error of the reader comes as the last element.
    """
    ahead: queue.Queue[Any] = queue.Queue(maxsize=2 * size)
    end = object()

    def read() -> None:
        try:
            for line in lines:
                ahead.put(line)
        except Exception as error:  # noqa: BLE001 - it is raised again where the lines are used
            ahead.put(error)
        finally:
            ahead.put(end)

    threading.Thread(target=read, daemon=True).start()
    item = None
    while item is not end:
        window: list[Any] = []
        deadline = float("inf")
        while len(window) < size:
            try:
                item = ahead.get(
                    timeout=None
                    if deadline == float("inf")
                    else max(0.0, deadline - time.monotonic())
                )
            except queue.Empty:
                break
            if item is end:
                break
            window.append(item)
            deadline = min(deadline, time.monotonic() + WAIT)
        if window:
            yield window
