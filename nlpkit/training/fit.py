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
from nlpkit.errors import SettingsError
from nlpkit.evaluation.thresholds import untuned_half
from nlpkit.inference.batching import split
from nlpkit.inference.devices import from_main, peak_memory
from nlpkit.inference.predictor import Predictor
from nlpkit.jsonl import write_atomic
from nlpkit.run import Run
from nlpkit.task import CoupledModel
from nlpkit.training.batching import Batches
from nlpkit.training.checkpoints import CHECKPOINT, Event, kept, write_state
from nlpkit.training.dataset import read_examples
from nlpkit.training.loop import Evaluation, train
from nlpkit.training.model_card import model_card
from nlpkit.training.plan import Data, Plan, build_run, load_data
from nlpkit.training.settings import TrainConfig
from nlpkit.training.split import tuning_half
from nlpkit.training.state import TrainState
from nlpkit.training.step import TrainingStep
from nlpkit.training.tensorboard import write_evaluation


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

    Seeds torch's generator for the training, differently in each process. Raises DataError for a
    line that the task cannot read, SettingsError where a batch would be cut that must not be, or a
    technique does not go with the model.
    """
    task = run.task
    config = build(TrainConfig, run.config["settings"]["train"], "train")
    whole = read_examples(task, data.train.pairs)
    examples = []
    for example in whole:
        examples += task.windows(example)
    lengths = [len(example) for example in examples]
    batches = Batches(lengths, config.batch_size, config.seed, config.batch_by == "tokens")
    if must_stay_whole(task, run.model):
        refuse_cuts(run.config["task"], config, batches, accelerator.num_processes)
    dev = read_examples(task, data.dev.pairs)
    state = TrainState(run.model, config, config.epochs * batches.per_epoch, accelerator)
    TrainingStep(state)  # refuses techniques that do not go with the model, before a run is there
    torch.manual_seed((config.seed * 1000 + accelerator.process_index) % 2**63)
    return Fit(
        accelerator=accelerator,
        run=run,
        config=config,
        examples=examples,
        augment=task.augmenter(examples),
        dev=dev,
        batches=batches,
        state=state,
        facts=sum(len(task.facts(example.gold)) for example in whole),
        lost=sum(_count_lost(task, example) for example in whole),
        tunes=task.tunes,
        tuning_half=tuning_half(data.dev) if task.tunes else [],
    )


def _count_lost(task: Any, example: Any) -> int:
    """Facts of an example's gold that no model can learn."""
    findings = task.report(example)
    return len({finding.lost for finding in findings if finding.lost is not None})


def must_stay_whole(task: Any, model: Any) -> bool:
    """Whether the batch of a step may not be cut: its loss couples the examples, and the model does
    not say through what."""
    return task.couples_examples and not isinstance(model, CoupledModel)


def refuse_cuts(task: str, config: TrainConfig, batches: Batches, processes: int) -> None:
    """Raises SettingsError where settings would cut a batch of a task whose loss couples the
    examples of a batch: the parts of such a batch have another loss than the whole."""
    why = f"the loss of {task} couples the examples of a batch, which must stay whole"
    if processes > 1:
        raise SettingsError(f"--processes: {why}: expected 1, got {processes}")
    if config.accumulate > 1:
        raise SettingsError(f"train.accumulate: {why}: expected 1, got {config.accumulate}")
    if config.max_tokens is None:
        return
    if config.batch_by == "tokens":
        raise SettingsError(f"train.max_tokens: {why}: expected none, got {config.max_tokens}")
    largest = min(config.batch_size, len(batches.lengths)) * int(batches.lengths.max())
    if config.max_tokens < largest:
        raise SettingsError(
            f"train.max_tokens: {why}: expected none or at least {largest}, "
            f"got {config.max_tokens}",
            hint="a smaller train.batch_size needs less memory",
        )


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
    state: TrainState
    facts: int
    lost: int
    tunes: bool
    tuning_half: list[bool]
    started: float = field(default_factory=time.monotonic)
    finished: bool = False

    def micro_batches(self, step: int) -> Iterator[Any]:
        """This process's micro-batches of the batch of a step."""
        ordered = sorted(self.batches[step].tolist(), key=lambda index: self.batches.lengths[index])
        mine = ordered[self.accelerator.process_index :: self.accelerator.num_processes]
        examples = [self._example(index, step) for index in mine]
        if must_stay_whole(self.run.task, self.run.model):
            yield self.run.task.collate(examples)
            return
        lengths = [len(example) for example in examples]  # as they were made
        most = self.config.max_tokens or (16384 if self.accelerator.device.type == "cuda" else 2048)
        for places in split(range(len(mine)), lengths, most, self.config.accumulate):
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

    def evaluate(self) -> dict[str, Any]:
        """Metrics on dev, where open thresholds are tuned too; the best so far also says what a
        threshold is worth on lines that it has not seen. One process does it and tells the
        others."""
        found = self._evaluate() if self.accelerator.is_main_process else None
        metrics, self.run.task.config = from_main(found)
        return metrics

    def _evaluate(self) -> tuple[dict[str, Any], Any]:
        task = self.run.task
        decode = partial(task.evaluate, loose=self.tunes, brief=True)
        predictor = Predictor(task, self.run.model, self.run.precision, decode=decode)
        predictions = predictor.of_examples(self.dev)
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
        if metrics[task.monitor] > self.state.best:
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
        """Forward and backward of the longest batch: (examples in it, peak memory in MiB)."""
        longest = max(
            range(self.batches.per_epoch),
            key=lambda step: self.batches.lengths[self.batches[step]].sum(),
        )
        TrainingStep(self.state).backward(partial(self.micro_batches, longest))
        self.state.wrapped.step()  # moments take memory too
        return len(self.batches[longest]), peak_memory(self.accelerator.device)

    def _finish(self) -> None:
        """Notes what was reached, writes the model card, and drops the checkpoint.

        A process may have died after its last checkpoint and before it told of it: what a checkpoint
        implies is written again.
        """
        run = self.run
        run.save_history(self.state.history)
        monitor = self.run.task.monitor
        best = max(self.state.history, key=lambda line: line[monitor])
        seconds = round(time.monotonic() - self.started, 1)
        run.config["result"] = {
            "monitor": monitor,
            "value": best[monitor],
            "metrics": best,
            "seconds": seconds,
        }
        with write_atomic(run.folder / "README.md") as stream:
            stream.write(model_card(run.config).encode())
        run.save_config()  # last, since it is what says that the run is finished
        (run.folder / CHECKPOINT).unlink(missing_ok=True)
