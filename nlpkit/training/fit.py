"""A training ready to go: examples, batches and the trainer's state; checkpoints kept, as events.

A training that was interrupted, or killed at any moment, continues from its last checkpoint with
the same result as one that was not; it is refused where data, settings, encoder or the number of
processes differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nlpkit.config import build
from nlpkit.evaluation.thresholds import untuned_half
from nlpkit.inference.devices import from_main, peak_memory
from nlpkit.inference.predictor import Predictor
from nlpkit.jsonl import write_atomic
from nlpkit.run import Run
from nlpkit.training.batching import Batches, cut, own_part
from nlpkit.training.checkpoints import CHECKPOINT, Event, kept, write_state
from nlpkit.training.closed_form import ClosedFormModel, refuse_training, step_of
from nlpkit.training.dataset import read_examples
from nlpkit.training.loop import Evaluation, train
from nlpkit.training.model_card import model_card
from nlpkit.training.plan import Data, Plan, build_run, load_data
from nlpkit.training.rehearsal import evaluate_longest, largest, take_steps
from nlpkit.training.settings import TrainConfig
from nlpkit.training.split import tuning_half
from nlpkit.training.state import TrainState
from nlpkit.training.tensorboard import write_evaluation
from nlpkit.training.unlabelled import unlabelled_batches
from nlpkit.training.whole_batches import must_stay_whole, refuse_cuts


def new_fit(plan: Plan, accelerator: Any, folder: Path, old: dict[str, Any] | None = None) -> Fit:
    """The training of a plan, in three steps; for the arguments and errors see `build_run`."""
    started = time.monotonic()
    data = load_data(plan, accelerator)
    run = build_run(plan, data, accelerator, folder, old)
    fit = make_state(run, data, accelerator)
    fit.started = started
    return fit


def make_state(run: Run, data: Data, accelerator: Any) -> Fit:
    """The examples of a run's data, their batches, and the trainer's state.

    Seeds torch's generator for the training. Raises as `read_fit`.
    """
    fit = read_fit(run, data, accelerator)
    is_computed = isinstance(run.model, ClosedFormModel)
    steps = 1 if is_computed else fit.config.epochs * fit.batches.per_epoch
    fit.state = new_state(run.model, fit.config, steps, accelerator)
    if data.unlabelled is not None:
        fit.state.unlabelled = unlabelled_batches(
            run.task, data.unlabelled, fit.config, accelerator
        )
    return fit


def new_state(model: Any, config: TrainConfig, steps: int, accelerator: Any) -> TrainState:
    """The trainer's state before the first step.

    Seeds torch's generator for the training, differently in each process. Raises SettingsError
    where settings do not go with the model.
    """
    state = TrainState(model, config, steps, accelerator)
    step_of(state)  # refuses what does not go with the model, before a run is there
    torch.manual_seed((config.seed * 1000 + accelerator.process_index) % 2**63)
    return state


def read_fit(run: Run, data: Data, accelerator: Any) -> Fit:
    """The examples of a run's data and their batches; the state is still to be set.

    Raises DataError for a line that the task cannot read, SettingsError where a batch would be cut
    that must not be.
    """
    task = run.task
    config = build(TrainConfig, run.config["settings"]["train"], "train")
    whole = read_examples(task, data.train.pairs)
    examples = []
    for example in whole:
        examples += task.windows(example)
    lengths = [len(example) for example in examples]
    size = config.batch_size
    if isinstance(run.model, ClosedFormModel):
        encoder: Any = run.model.encoder
        refuse_training(run.config["task"], config, encoder.learns_as)
        size = len(examples)
    batches = Batches(lengths, size, config.seed, config.batch_by == "tokens")
    if must_stay_whole(task, run.model):
        refuse_cuts(run.config["task"], config, batches, accelerator.num_processes)
    return Fit(
        accelerator=accelerator,
        run=run,
        config=config,
        examples=examples,
        augment=task.augmenter(examples),
        dev=read_examples(task, data.dev.pairs),
        batches=batches,
        facts=sum(len(task.facts(example.gold)) for example in whole),
        lost=sum(_count_lost(task, example) for example in whole),
        tunes=task.tunes,
        tuning_half=tuning_half(data.dev) if task.tunes else [],
    )


def _count_lost(task: Any, example: Any) -> int:
    """Facts of an example's gold that no model can learn."""
    findings = task.report(example)
    return len({finding.lost for finding in findings if finding.lost is not None})


def run_summary(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The last line of `nlpkit train`, from the config of a finished run."""
    result = config["result"]
    return {"run": str(folder), **{key: result[key] for key in ("monitor", "value", "seconds")}}


@dataclass
class Fit:
    """A training ready to go. Iterate over `events()`.

    `examples` are the windows of the training data, `facts` how many facts their gold states,
    `lost` how many of these no model can learn. `tunes` is whether evaluation tunes a threshold: as
    it was set, since a tuned threshold looks like one that the user gave. `tuning_half` are the
    lines of dev on which the threshold of `f1_untuned_half` is tuned.
    """

    accelerator: Any
    run: Run
    config: TrainConfig
    examples: list[Any]
    augment: Callable[[Any, Any], Any] | None
    dev: list[Any]
    batches: Batches
    state: TrainState = field(init=False)
    facts: int
    lost: int
    tunes: bool
    tuning_half: list[bool]
    started: float = field(default_factory=time.monotonic)
    finished: bool = False

    @property
    def parts(self) -> list[Fit]:
        """The training of each task: this one."""
        return [self]

    def micro_batches(self, step: int) -> Iterator[Any]:
        """This process's micro-batches of the batch of a step."""
        mine = own_part(self.batches, step, self.accelerator)
        examples = [self._example(index, step) for index in mine]
        if must_stay_whole(self.run.task, self.run.model):
            yield self.run.task.collate(examples)
            return
        lengths = [len(example) for example in examples]  # as they were made
        for places in cut(lengths, self.config, self.accelerator.device):
            yield self.run.task.collate([examples[place] for place in places])

    def _example(self, index: int, step: int) -> Any:
        """An example as it is, or as the task's augmenter makes it for this step: the same however
        the batch is cut."""
        if self.augment is None:
            return self.examples[index]
        made = self.augment(
            self.examples[index], np.random.default_rng((self.config.seed, step, index))
        )
        return (
            made if len(self.run.task.windows(made)) == 1 else self.examples[index]
        )  # it may have grown too long

    def evaluate(self, best: float | None = None) -> dict[str, Any]:
        """Metrics on dev, where open thresholds are tuned too; a value above the best so far also
        says what a threshold is worth on lines that it has not seen. One process does it and tells
        the others.

        `best` is the best so far, None for that of the state.
        """
        best = self.state.best if best is None else best
        found = self._evaluate(best) if self.accelerator.is_main_process else None
        metrics, self.run.task.config = from_main(found)
        return metrics

    def predictor(self) -> Predictor:
        """What an evaluation predicts with: no more than the scores ask for."""
        task = self.run.task
        decode = partial(task.evaluate, loose=self.tunes, brief=True)
        return Predictor(task, self.run.model, self.run.precision, decode=decode)

    def _evaluate(self, best: float) -> tuple[dict[str, Any], Any]:
        task = self.run.task
        predictions = self.predictor().of_examples(self.dev)
        predictions = [
            task.restrict_to_annotated(*pair) for pair in zip(self.dev, predictions, strict=True)
        ]
        golds = [example.gold for example in self.dev]
        pairs = list(zip(golds, predictions, strict=True))
        if not self.tunes:
            return task.score(pairs), task.config
        config = task.tune(pairs)
        metrics = task.score((gold, task.cut(loose, config)) for gold, loose in pairs)
        metrics["threshold"] = round(config.threshold, 4)
        if metrics[task.monitor] > best:
            metrics |= untuned_half(task, pairs, self.tuning_half)
        return metrics, config

    def events(self) -> Iterator[Event]:
        """Trains to the end, or until `state.interrupted` is set; writes the best model and
        checkpoints on the way."""
        events = train(
            self.state,
            self.micro_batches,
            self.evaluate,
            self.run.task.monitor,
            self.batches.per_epoch,
        )
        self.finished = yield from kept(events, self.state, self._save)
        if self.finished and self.accelerator.is_main_process:
            self._finish()

    def _save(self, event: Event) -> None:
        """Writes the model where it is the best so far, and a checkpoint; all processes must call
        it."""
        if isinstance(event, Evaluation) and event.is_best and self.accelerator.is_main_process:
            with self.state.evaluated_weights():
                self.run.save_model(event.metrics)
        write_state(self.state, self.run.folder)
        if self.accelerator.is_main_process:
            self.run.save_history(self.state.history)
            if self.config.tensorboard and isinstance(event, Evaluation):
                write_evaluation(self.run.folder, self.state.history[-1])

    def summary(self) -> dict[str, Any]:
        """See `run_summary`."""
        return run_summary(self.run.folder, self.run.config)

    def rehearse(self) -> tuple[int, float]:
        """Tries what takes the most memory, see `rehearsal`: (examples of the batch with the most
        tokens, peak memory in MiB)."""
        steps = largest(self.batches.per_epoch, self.batches)
        take_steps(self.state, self.micro_batches, steps)
        with self.state.evaluated_weights():
            evaluate_longest(self)
        return len(self.batches[steps[0]]), peak_memory(self.accelerator.device)

    def save_new(self) -> None:
        """Writes what the run has before it has a model."""
        self.run.save_new()

    def move(self, folder: Path) -> None:
        """Takes note that the run lies in another folder now."""
        self.run.folder = folder

    def _finish(self) -> None:
        """Notes what was reached, and drops the checkpoint.

        A process may have died after its last checkpoint and before it told of it: what a checkpoint
        implies is written again.
        """
        self.run.save_history(self.state.history)
        monitor = self.run.task.monitor
        best = max(self.state.history, key=lambda line: line[monitor])
        note_result(self.run, best, time.monotonic() - self.started)
        (self.run.folder / CHECKPOINT).unlink(missing_ok=True)


def note_result(run: Run, best: dict[str, Any], seconds: float, **more: Any) -> None:
    """Writes what a finished run has reached to its config, and the model card.

    `best` are the metrics of the evaluation whose model is kept, `more` goes into the result too.
    """
    monitor = run.task.monitor
    run.config["result"] = {
        "monitor": monitor,
        "value": best[monitor],
        "metrics": best,
        "seconds": round(seconds, 1),
        **more,
    }
    with write_atomic(run.folder / "README.md") as stream:
        stream.write(model_card(run.config).encode())
    run.save_config()  # last, since it is what says that the run is finished
