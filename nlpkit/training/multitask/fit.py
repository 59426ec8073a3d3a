"""A training of several tasks ready to go: one encoder, and a run for each task.

A step has a batch of every task, so that the gradients of all are taken at the same weights and can
be weighed against each other, and so that no task's batch undoes what another's has just done. An
epoch is as many steps as the examples of all tasks make at `train.batch_size`; each task's batches
are so large that its own epoch ends with it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlpkit.errors import NlpkitError, SettingsError
from nlpkit.inference.devices import peak_memory
from nlpkit.task import CoupledModel
from nlpkit.training.batching import Batches
from nlpkit.training.checkpoints import CHECKPOINT, Event, kept, write_state
from nlpkit.training.closed_form import ClosedFormModel
from nlpkit.training.fit import Fit, new_state, note_result, read_fit, run_summary
from nlpkit.training.loop import Evaluation, train
from nlpkit.training.multitask.model import MultiModel, TaskBatch
from nlpkit.training.multitask.plan import MultiPlan
from nlpkit.training.plan import build_run, load_data, load_encoder
from nlpkit.training.rehearsal import evaluate_longest, largest, take_steps
from nlpkit.training.settings import TrainConfig
from nlpkit.training.state import TrainState
from nlpkit.training.tensorboard import write_evaluation

MONITOR = "mean"
"""The metric that picks the best: the mean of the tasks' monitored values."""


def new_multi_fit(
    plan: MultiPlan, accelerator: Any, folder: Path, olds: list[dict[str, Any]]
) -> MultiFit:
    """The training of a plan.

    `olds` are the configs of the runs to continue, in the order of the tasks, empty for new ones.
    Raises as `build_run` and `read_fit`, and SettingsError for a task that must train alone.
    """
    started = time.monotonic()
    encoder, tokenizer = load_encoder(plan)
    fits = {}
    for number, one in enumerate(plan.runs):
        with errors_of(one.task):
            data = load_data(one, accelerator)
        place = folder / one.task
        place.mkdir(exist_ok=True)
        old = olds[number] if olds else None
        weights = list(encoder.state_dict())
        with errors_of(one.task):
            run = build_run(one, data, accelerator, place, old, (encoder, tokenizer))
        if list(encoder.state_dict()) != weights:
            raise SettingsError(f"{one.task}: changes its encoder: it must train alone")
        refuse_coupled(one.task, run)
        fits[one.task] = read_fit(run, data, accelerator)
    config = next(iter(fits.values())).config
    per_epoch = share_steps(fits, config)
    model = MultiModel({name: fit.run.model for name, fit in fits.items()})
    state = new_state(model, config, config.epochs * per_epoch, accelerator)
    return MultiFit(accelerator, config, folder, fits, per_epoch, state, started)


@contextlib.contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Within the block an error for the user says of which task it is."""
    try:
        yield
    except NlpkitError as error:
        error.message = f"{name}: {error.message}"
        raise


def refuse_coupled(name: str, run: Any) -> None:
    """Raises SettingsError for a task of which the losses of a step are not those of its
    micro-batches, or follow from how many examples came before."""
    if run.task.couples_examples or isinstance(run.model, CoupledModel):
        raise SettingsError(f"{name}: its loss couples the examples of a step: it must train alone")
    if isinstance(run.model, ClosedFormModel):
        raise SettingsError(f"{name}: its model is computed, not trained: it must stand alone")
    if any(hasattr(module, "count_examples") for module in run.model.modules()):
        raise SettingsError(f"{name}: its model counts the examples: it must train alone")


def share_steps(fits: dict[str, Fit], config: TrainConfig) -> int:
    """Gives each task batches of such a size that all end their epoch together; the steps of an
    epoch.

    Where its examples are fewer than the steps, a task has one in each step, and meets it more than
    once in an epoch.
    """
    counts = {name: len(fit.examples) for name, fit in fits.items()}
    per_epoch = -(-sum(counts.values()) // config.batch_size)
    for name, fit in fits.items():
        size = -(-counts[name] // per_epoch)
        by_tokens = config.batch_by == "tokens"
        fit.batches = Batches(fit.batches.lengths.tolist(), size, config.seed, by_tokens)
    return per_epoch


@dataclass
class MultiFit:
    """A training of several tasks. Iterate over `events()`.

    `folder` holds the checkpoint, and a run for each task; `fits` are what each task has of its
    own, by its name; `per_epoch` are the steps of an epoch.
    """

    accelerator: Any
    config: TrainConfig
    folder: Path
    fits: dict[str, Fit]
    per_epoch: int
    state: TrainState
    started: float
    finished: bool = field(default=False)

    @property
    def parts(self) -> list[Fit]:
        """What each task has of its own, in order."""
        return list(self.fits.values())

    def micro_batches(self, step: int) -> Iterator[TaskBatch]:
        """This process's micro-batches of the batches of a step, task by task."""
        counts = {name: len(fit.batches[step]) for name, fit in self.fits.items()}
        examples = sum(counts.values())
        for name, fit in self.fits.items():
            for batch in fit.micro_batches(step):
                yield TaskBatch(name, batch, examples / counts[name])

    def evaluate(self) -> dict[str, Any]:
        """The mean of the tasks' monitored values, and all their metrics as `task.metric`."""
        values = []
        found: dict[str, Any] = {}
        for name, fit in self.fits.items():
            metrics = fit.evaluate(best=float("-inf"))
            values.append(metrics[fit.run.task.monitor])
            found |= {f"{name}.{key}": value for key, value in metrics.items()}
        return {MONITOR: round(sum(values) / len(values), 6), **found}

    def events(self) -> Iterator[Event]:
        """Trains to the end, or until `state.interrupted` is set; writes the best models and
        checkpoints on the way."""
        events = train(self.state, self.micro_batches, self.evaluate, MONITOR, self.per_epoch)
        self.finished = yield from kept(events, self.state, self._save)
        if self.finished and self.accelerator.is_main_process:
            self._finish()

    def _save(self, event: Event) -> None:
        """As that of a `Fit`."""
        is_main = self.accelerator.is_main_process
        if isinstance(event, Evaluation) and event.is_best and is_main:
            with self.state.evaluated_weights():
                for name, fit in self.fits.items():
                    fit.run.save_model(metrics_of(name, event.metrics))
        write_state(self.state, self.folder)
        if is_main:
            self._save_histories()
            if self.config.tensorboard and isinstance(event, Evaluation):
                for name, fit in self.fits.items():
                    write_evaluation(fit.run.folder, self.history_of(name)[-1])

    def history_of(self, name: str) -> list[dict[str, Any]]:
        """The evaluations of a task, as those of a training of its own."""
        history = []
        for line in self.state.history:
            place = {key: line[key] for key in ("step", "epoch")}
            history.append({**place, **metrics_of(name, line)})
        return history

    def _save_histories(self) -> None:
        for name, fit in self.fits.items():
            fit.run.save_history(self.history_of(name))

    def _finish(self) -> None:
        """As that of a `Fit`: of every task, at the evaluation with the best mean."""
        self._save_histories()
        means = [line[MONITOR] for line in self.state.history]
        best = means.index(max(means))
        chosen_by = " and ".join(f"{fit.run.task.monitor} of {n}" for n, fit in self.fits.items())
        seconds = time.monotonic() - self.started
        for name, fit in self.fits.items():
            line = self.history_of(name)[best]
            more = {"chosen_by": f"the mean of {chosen_by}", MONITOR: means[best]}
            note_result(fit.run, line, seconds, **more)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)

    def summary(self) -> dict[str, Any]:
        """See `multi_summary`."""
        return multi_summary(self.folder, [fit.run.config for fit in self.parts])

    def rehearse(self) -> tuple[int, float]:
        """As that of a `Fit`, of steps of all tasks."""
        steps = largest(self.per_epoch, *(fit.batches for fit in self.parts))
        take_steps(self.state, self.micro_batches, steps)
        with self.state.evaluated_weights():
            for fit in self.parts:
                evaluate_longest(fit)
        examples = sum(len(fit.batches[steps[0]]) for fit in self.parts)
        return examples, peak_memory(self.accelerator.device)

    def save_new(self) -> None:
        """Writes what the runs have before they have models."""
        for fit in self.parts:
            fit.save_new()

    def move(self, folder: Path) -> None:
        """Takes note that the training lies in another folder now."""
        self.folder = folder
        for name, fit in self.fits.items():
            fit.move(folder / name)


def metrics_of(name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """Those of one task among the metrics of all."""
    start = f"{name}."
    return {k.removeprefix(start): value for k, value in metrics.items() if k.startswith(start)}


def multi_summary(folder: Path, configs: list[dict[str, Any]]) -> dict[str, Any]:
    """The last line of `nlpkit train`, from the configs of the finished runs in a folder."""
    result = configs[0]["result"]
    runs = {}
    for config in configs:
        runs[config["task"]] = run_summary(folder / config["task"], config)
    best = {"monitor": MONITOR, "value": result[MONITOR], "seconds": result["seconds"]}
    return {"run": str(folder), **best, "runs": runs}
