"""What people see, on stderr: progress while training, tables of metrics and of parameter
groups."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cli.output import write_json

if TYPE_CHECKING:
    from nlpkit.training.loop import Evaluation, Step
    from nlpkit.training.state import TrainState

LINE_EVERY = 10.0  # seconds between two lines where stderr is no terminal


def console() -> Console:
    """stderr; `NO_COLOR` and `TERM=dumb` are rich's to respect."""
    return Console(stderr=True, highlight=False)


class TrainingDisplay:
    """A bar where stderr is a terminal, else a line every few seconds; a line for every evaluation.

    Args:
        state: of the trainer.
        opening: what is said first.
        shown: whether this process speaks.
        per_step: what a step takes in, and its name; None counts the examples of the events.
    """

    def __init__(
        self,
        state: TrainState,
        opening: list[str],
        shown: bool,
        per_step: tuple[int, str] | None = None,
    ):
        self.state = state
        self.opening = opening
        self.shown = shown
        self.per_step = per_step
        self.console = console()
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        ]
        self.bar = Progress(
            *columns,
            console=self.console,
            transient=True,
            disable=not (shown and sys.stderr.isatty()),
        )
        self.last = self.started = time.monotonic()
        self.first = state.step
        self.count = 0

    def __enter__(self) -> TrainingDisplay:
        for line in self.opening:
            self.say(line)
        if self.state.step:
            self.say(f"continuing after step {self.state.step} of {self.state.steps}")
        self.bar.start()
        self.task = self.bar.add_task("", total=self.state.steps, completed=self.state.step)
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """A line of text as it is."""
        if self.shown:
            self.console.print(text, markup=False, soft_wrap=True)

    def show(self, event: Step | Evaluation) -> None:
        """Draws an event."""
        from nlpkit.training.loop import Evaluation

        place = f"step {event.step}" if self.per_step else f"epoch {event.epoch:.2f}"
        if isinstance(event, Evaluation):
            values = " ".join(f"{key} {value}" for key, value in event.metrics.items())
            self.say(f"{place}: {values}{' *' if event.is_best else ''}")
            return
        size, unit = self.per_step or (event.examples, "examples")
        self.count += size
        passed = time.monotonic() - self.last
        loss = "" if math.isnan(event.loss) else f"loss {event.loss:.4f}"
        text = f"{place} {loss}".rstrip()
        self.bar.update(self.task, completed=event.step, description=text)
        if passed > LINE_EVERY:
            if self.bar.disable:
                text = text if self.per_step is None else loss
                speed = f"{self.count / passed:,.0f} {unit}/s, {self._left(event.step)} left"
                self.say(f"step {event.step}/{event.steps} {text} {speed}")
            self.last = time.monotonic()
            self.count = 0

    def _left(self, step: int) -> str:
        """The time that the rest takes at the speed so far."""
        seconds = (
            (time.monotonic() - self.started) / (step - self.first) * (self.state.steps - step)
        )
        return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"


def follow(training: Any, display: TrainingDisplay) -> int:
    """Runs a `Fit` or a `Pretraining` and shows it; the exit code, 130 after Ctrl-C, when a
    checkpoint was saved."""
    from nlpkit.inference.devices import part

    with display, on_interrupt(training.state):
        for event in training.events():
            display.show(event)
    if training.finished:
        is_main = training.accelerator.is_main_process
        return finish(training.accelerator, training.summary() if is_main else {})
    part(training.accelerator)
    display.say("interrupted; the same command goes on from here")
    return 130


def finish(accelerator: Any, summary: dict[str, Any]) -> int:
    """The end of a training that is done: one process writes its summary; the exit code."""
    from nlpkit.inference.devices import part

    part(accelerator)
    if accelerator.is_main_process:
        write_json(summary)
    return 0


def opening_lines(fit: Any) -> list[str]:
    """What a training, a `Fit` or a `MultiFit`, says of its data."""
    lines = []
    for part in fit.parts:
        start = _name(fit, part)
        data = part.run.config["data"]
        lines.append(
            f"{start}{data['train_lines']} lines to train on, {data['dev_lines']} to evaluate on"
        )
        if part.lost:
            lost = f"{start}{part.lost} of {part.facts} gold facts can't be learned from"
            lines.append(f"{lost} (nlpkit data check says why)")
    return lines


def _name(fit: Any, part: Any) -> str:
    """The task of a part of a training, in front of what is said of it; empty for the only one."""
    return f"{part.run.config['task']}: " if len(fit.parts) > 1 else ""


class LinesDisplay:
    """A line every few seconds of how many lines were predicted and how fast; of long texts also
    how much of them is done."""

    def __init__(self) -> None:
        self.started = self.last = time.monotonic()

    def counted(self, chunks: Iterable[bytes], source: Any) -> Iterator[bytes]:
        """The chunks as they are; `source.lines` counts the lines read for them."""
        for chunk in chunks:
            yield chunk
            passed = time.monotonic() - self.started
            self._say(f"{source.lines} lines, {source.lines / passed:.0f} lines/s")

    def batch(self, done: int, total: int) -> None:
        """To be called after a batch with the windows of text done and those to do before the next
        output."""
        if done < total:
            self._say(f"{done} of {total} windows of text before the next output")

    def _say(self, text: str) -> None:
        if time.monotonic() - self.last > LINE_EVERY:
            self.last = time.monotonic()
            console().print(text, markup=False)


@contextlib.contextmanager
def on_interrupt(state: TrainState) -> Iterator[None]:
    """Within the block the first Ctrl-C asks the trainer to stop after its step, the second one
    stops at once."""

    def ask(number: int, frame: Any) -> None:
        state.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def show_rehearsal(fit: Any, examples: int, peak: float) -> None:
    """The table of `--dry-run`."""
    err = console()
    table = Table("rate", "decay", "weights", "tensors", "for example", title="parameter groups")
    for group in fit.state.groups:
        row = (
            f"{group.learning_rate:.3g}",
            f"{group.weight_decay:g}",
            f"{group.size:,}",
            str(len(group.names)),
        )
        table.add_row(*row, escape(group.names[0]))
    err.print(table)
    for part in fit.parts:
        start = _name(fit, part)
        lines = part.run.config["data"]["train_lines"]
        err.print(
            f"{start}{lines} lines in {len(part.examples)} examples, {fit.state.steps} steps;",
            f"gold facts that can't be learned: {part.lost} of {part.facts}",
        )
    of_what = "the GPU" if fit.accelerator.device.type == "cuda" else "the process"
    err.print(f"longest batch: {examples} examples; peak memory of {of_what}: {peak:.0f} MiB")
    err.print(f"precision: {fit.accelerator.precision_choice}", highlight=False)


def show_metrics(metrics: dict[str, Any]) -> None:
    """JSON on stdout where it is piped; a table on stderr where a person looks."""
    if not sys.stdout.isatty():
        write_json(metrics)
        return
    table = Table(show_header=False)
    for name, value in metrics.items():
        if not isinstance(value, dict):
            table.add_row(name, escape(str(value)))
    console().print(table)
    if "by" in metrics:
        table = Table("", "precision", "recall", "f1", "gold")
        for name, values in metrics["by"].items():
            table.add_row(
                escape(name), *(str(values[key]) for key in ("precision", "recall", "f1", "gold"))
            )
        console().print(table)
