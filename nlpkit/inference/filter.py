"""The filter of `predict`: lines in, the same lines out with `prediction` added.

Memory grows neither with the input nor with the length of its lines: a window of lines, bounded in
number and bytes, is read, cut to the encoder's length, sorted
by length, decoded in batches, merged and written in the order it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from nlpkit.errors import DataError
from nlpkit.inference.line_predictor import LinePredictor, ReadLine
from nlpkit.inference.predictor import Predictor
from nlpkit.inference.windows import WINDOW, windows_ahead
from nlpkit.jsonl import Line

OnError = Literal["fail", "skip", "emit"]


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
        core = LinePredictor(self.predictor, self.only_output)
        for window in windows_ahead(lines, 1 if self.unbuffered else WINDOW):
            broken = window.pop() if isinstance(window[-1], Exception) else None
            outputs, failure = self._window(core, window)
            if outputs:
                yield b"\n".join(outputs) + b"\n"
            error = failure or broken
            if error:
                raise error

    def _window(
        self, core: LinePredictor, window: list[Line]
    ) -> tuple[list[bytes], Exception | None]:
        """The outputs of the lines, up to the one that ends the filter, and the error that does."""
        read: list[ReadLine] = []
        failure: Exception | None = None
        for line in window:
            self.lines += 1
            try:
                read.append(self._counted(core.read(line)))
            except Exception as error:  # noqa: BLE001 - it is raised when the lines before are out
                failure = error
                break
        finished, broken = core.finish(read)
        outputs = []
        for one in finished:
            problem = one.outcome.error
            if problem is None or self.on_error == "emit":
                outputs.append(core.output(one))
            else:
                self.on_skip(problem.at(one.line.where))
        return outputs, broken or failure

    def _counted(self, read: ReadLine) -> ReadLine:
        """Raises DataError for a bad line under on_error="fail"."""
        self.cut += read.outcome.is_cut
        error = read.outcome.error
        if error is not None:
            self.skipped += 1
            if self.on_error == "fail":
                raise error.at(read.line.where)
        return read
