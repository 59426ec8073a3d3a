"""Predictions of a trained model: records in, outcomes out, in order.

The filter of `predict`, `eval` and the evaluation of a training all predict through `Predictor`, so
that the score of one is the score of the other. It keeps nothing from one record to the next: what
a record draws at random depends on the task's seed and the number of its line, and several threads
may call it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from nlpkit.errors import RecordError
from nlpkit.inference.batching import cheapest
from nlpkit.inference.memory import rows_in_memory
from nlpkit.layers.steady_products import steady

MAX_TOKENS = 8192  # of a batch, padding included

Long = Literal["fail", "split", "cut"]


class Outcome(NamedTuple):
    """What became of one record: a prediction, or the error that kept it from one.

    `example` is the record as the task read it, None where it could not be read. `is_cut` says that
    the end of the text was not looked at.
    """

    example: Any = None
    prediction: Any = None
    error: RecordError | None = None
    is_cut: bool = False


@dataclass(frozen=True)
class Predictor:
    """A task and its model at work; `model` is in evaluation mode."""

    task: Any
    model: torch.nn.Module
    precision: str = "fp32"
    """Of the matrix products: "fp32" or "bf16"."""
    batch_size: int = 64
    """Most windows decoded together; fewer where they are long (MAX_TOKENS), or where what is
    written to them takes much memory (`rows_in_memory`)."""
    long: Long = "split"
    """A text longer than the model takes: "split" to windows, "cut" to its first, or "fail"."""
    decode: Callable[[Any, Any], list[Any]] | None = None
    """From (model, batch) to predictions; None for `task.decode`. Evaluation has `task.evaluate`."""
    on_batch: Callable[[int, int], None] | None = None
    """Called after every batch with the windows done and those to do in all."""

    def __post_init__(self) -> None:
        steady(self.model)

    def __call__(self, records: Iterable[tuple[int, dict[str, Any]]]) -> list[Outcome]:
        """One outcome for each (line number, record), in order. A record's own error stays its
        own."""
        read = [self.read(number, record) for number, record in records]
        return self.finish(read)

    def read(self, number: int, record: dict[str, Any]) -> Outcome:
        """The outcome so far of a record of line `number`: its example or its error."""
        try:
            example = self.task.numbered(self.task.read(record), number)
            if self.long == "split":
                return Outcome(example)
            windows = self.task.windows(example)
            if len(windows) > 1 and self.long == "fail":
                raise RecordError(
                    f"too long: {len(example)} tokens, {len(windows[0])} fit",
                    hint="--long split or cut",
                )
            return Outcome(example, is_cut=len(windows) > 1)
        except RecordError as error:
            return Outcome(error=error)

    def finish(self, read: Sequence[Outcome]) -> list[Outcome]:
        """The outcomes of `read`, those without an error with their predictions."""
        good = [outcome for outcome in read if outcome.error is None]
        windows = [self._windows(outcome) for outcome in good]
        examples = [outcome.example for outcome in good]
        predictions = iter(self._merged(examples, windows))
        finished = []
        for outcome in read:
            if outcome.error is None:
                outcome = Outcome(outcome.example, next(predictions), None, outcome.is_cut)
            finished.append(outcome)
        return finished

    def of_examples(self, examples: Sequence[Any]) -> list[Any]:
        """One prediction for each example, in order."""
        return self._merged(examples, [self.task.windows(example) for example in examples])

    def _windows(self, outcome: Outcome) -> list[Any]:
        windows = self.task.windows(outcome.example)
        return windows[:1] if outcome.is_cut else windows

    def _merged(self, examples: Sequence[Any], windows: Sequence[list[Any]]) -> list[Any]:
        """The predictions of the examples from those of their windows."""
        decoded = iter(self._decoded([window for some in windows for window in some]))
        merged = []
        for example, some in zip(examples, windows, strict=True):
            merged.append(self.task.merge(example, [next(decoded) for _ in some]))
        return merged

    def _decoded(self, windows: list[Any]) -> list[Any]:
        """One prediction for each window, in order; batches are of nearly equal length."""
        decoded: list[Any] = [None] * len(windows)
        if not windows:
            return decoded
        decode = self.task.decode if self.decode is None else self.decode
        device = next(self.model.parameters()).device
        lengths = [len(window) for window in windows]
        is_bf16 = self.precision == "bf16"
        done = 0
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
            rows_of = rows_in_memory(self.task, self.model, windows)
            for indices in cheapest(lengths, self.batch_size, MAX_TOKENS, rows_of):
                some = [windows[index] for index in indices]
                batch = self.task.collate(some, targets=False).to(device)
                for index, prediction in zip(indices, decode(self.model, batch), strict=True):
                    decoded[index] = prediction
                done += len(indices)
                if self.on_batch is not None:
                    self.on_batch(done, len(windows))
        return decoded


def predict_examples(
    task: Any, model: torch.nn.Module, examples: Sequence[Any], **settings: Any
) -> list[Any]:
    """One prediction for each example, in order; `settings` are those of `Predictor`."""
    return Predictor(task, model, **settings).of_examples(examples)
