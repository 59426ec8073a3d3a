"""From lines to output lines, some at a time: what the filter, the service and the shards share.

A line that gives no prediction gives an error object in its place, `{"error": ..., "line": n}`.
What a line gives depends on its bytes and its number alone, and on nothing that stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nlpkit.errors import RecordError
from nlpkit.inference.predictor import Outcome, Predictor
from nlpkit.jsonl import Line, dumps, with_field


class ReadLine(NamedTuple):
    """A line, its object (empty where it is none), and what is known of its prediction."""

    line: Line
    record: dict[str, Any]
    outcome: Outcome


@dataclass(frozen=True)
class LinePredictor:
    """A predictor of lines; several threads may call it at once."""

    predictor: Predictor
    only_output: bool = False
    """Give the predictions alone, not the lines with them."""

    def read(self, line: Line) -> ReadLine:
        """The line with its example or its error."""
        record: dict[str, Any] = {}
        try:
            record = line.record()
            outcome = self.predictor.read(line.number, record)
        except RecordError as error:
            outcome = Outcome(error=error)
        return ReadLine(line, record, outcome)

    def finish(self, read: Sequence[ReadLine]) -> tuple[list[ReadLine], Exception | None]:
        """The lines with their predictions, and None; or those before the one that fails, and its
        error, which is a bug or a lack of memory.

        Where an error spoils a batch, its lines are predicted one by one.
        """
        try:
            return self._finished(read), None
        except Exception:  # noqa: BLE001 - the line that is to blame raises it again
            finished: list[ReadLine] = []
            for one in read:
                try:
                    finished += self._finished([one])
                except Exception as error:  # noqa: BLE001 - the caller decides what ends
                    return finished, error
            return finished, None

    def _finished(self, read: Sequence[ReadLine]) -> list[ReadLine]:
        outcomes = self.predictor.finish([one.outcome for one in read])
        return [
            ReadLine(one.line, one.record, outcome)
            for one, outcome in zip(read, outcomes, strict=True)
        ]

    def output(self, finished: ReadLine) -> bytes:
        """The output line, without a line end: with the prediction, or an error object."""
        line, record, outcome = finished
        if outcome.error is not None:
            return error_line(outcome.error.message, line.number)
        if self.only_output:
            return dumps(outcome.prediction)
        return with_field(line.raw, record, "prediction", outcome.prediction)


def error_line(message: str, number: int) -> bytes:
    """What stands in the place of line `number` where it gives no prediction."""
    return dumps({"error": message, "line": number})
