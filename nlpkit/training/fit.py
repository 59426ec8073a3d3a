"""From a plan to a trained run: data, task, encoder and trainer put together, checkpoints kept, as
events.

A training that was interrupted, or killed at any moment, continues from its last checkpoint with
the same result as one that was not; it is refused where data, settings, encoder or the number of
processes differ.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list

from nlpkit import encoders, tasks
from nlpkit.config import Values, build, resolve
from nlpkit.errors import SettingsError
from nlpkit.inference.batching import split
from nlpkit.inference.devices import peak_memory
from nlpkit.inference.predictor import Predictor
from nlpkit.jsonl import write_atomic
from nlpkit.run import Run, describe
from nlpkit.text.tokenizer import vocabulary_hash
from nlpkit.training.batching import Batches
from nlpkit.training.checkpoints import CHECKPOINT, Event, kept, write_state
from nlpkit.training.dataset import Records, read_examples, read_records, split_by_content
from nlpkit.training.loop import Evaluation, TrainState, train
from nlpkit.training.model_card import model_card
from nlpkit.training.settings import TrainConfig


@dataclass(frozen=True)
class Plan:
    """What the user asked for. `values` are the sections of settings, already in order of
    precedence."""

    task: str
    data: tuple[str, ...]
    out: Path
    dev: tuple[str, ...] = ()
    encoder: str = "tiny"
    values: tuple[Values, ...] = ()
    device: str = "auto"
    resume: str = "auto"
    force: bool = False


def settings_of(plan: Plan) -> dict[str, Any]:
    """The settings of all sections: `train`, `encoder`, and one with the name of the task. Raises
    SettingsError."""
    task = tasks.load(plan.task)
    sections = {
        "train": TrainConfig,
        "encoder": encoders.settings_of(plan.encoder),
        tasks.canonical(plan.task): task.Config,
    }
    return resolve(sections, *plan.values)


class Fit:
    """A training ready to go: `run`, `state`, and the examples. Iterate over `events()`.

    Args:
        plan: what to do.
        accelerator: an `accelerate.Accelerator` (see `nlpkit.inference.devices`).
        folder: where files are written; it exists.
        old: the `config.json` of the run to continue, None for a new one. Raises SettingsError
            where the plan differs.
    """

    def __init__(
        self, plan: Plan, accelerator: Any, folder: Path, old: dict[str, Any] | None = None
    ):
        self.accelerator = accelerator
        self.started, self.finished = time.monotonic(), False
        settings = settings_of(plan)
        train_records, dev_records = _read(plan)
        torch.manual_seed(settings["train"].seed)
        head = tasks.load(plan.task).needs_head(settings[tasks.canonical(plan.task)])
        encoder, tokenizer = encoders.load(plan.encoder, settings["encoder"], head=head)
        settings["train"] = self.config = settings["train"].completed(encoder.learns_as)
        config = describe(
            tasks.canonical(plan.task),
            plan.encoder,
            settings,
            _describe_data(plan, train_records, dev_records),
        )
        config["encoder"]["spec"] = encoder.spec()
        config["tokenizer_sha256"] = vocabulary_hash(tokenizer.backend)
        config |= {"processes": accelerator.num_processes, "precision": accelerator.mixed_precision}
        config["device"] = accelerator.device.type
        if old is not None:
            refuse_differences(old, json.loads(json.dumps(config)))
        task_config = self._prepare(plan, settings[config["task"]], train_records, folder, old)
        config["prepared"] = asdict(task_config)
        task = tasks.load(plan.task)(task_config, tokenizer, folder)
        self.run = Run(folder, config, task, tokenizer, task.build_model(encoder))
        self.tunes = (
            task.tunes
        )  # as it was set: a tuned threshold looks like one that the user gave
        examples = read_examples(task, train_records.pairs)
        self.facts = sum(len(task.facts(e.gold)) for e in examples)
        self.lost = sum(
            len({f.lost for f in task.report(e) if f.lost is not None}) for e in examples
        )
        self.examples = [piece for example in examples for piece in task.windows(example)]
        self.augment = task.augmenter(self.examples)
        self.dev = read_examples(task, dev_records.pairs)
        by_tokens = self.config.batch_by == "tokens"
        self.batches = Batches(
            [len(e) for e in self.examples], self.config.batch_size, self.config.seed, by_tokens
        )
        self.state = TrainState(
            self.run.model, self.config, self.config.epochs * self.batches.per_epoch, accelerator
        )
        torch.manual_seed((self.config.seed * 1000 + accelerator.process_index) % 2**63)

    def _prepare(
        self, plan: Plan, config: Any, records: Records, folder: Path, old: dict[str, Any] | None
    ) -> Any:
        """The task's settings after `prepare`, which a continued run has behind it."""
        task_class = tasks.load(plan.task)
        if old is not None:
            return build(task_class.Config, old["prepared"], old["task"])
        main = self.accelerator.is_main_process
        return _from_main(task_class.prepare(config, records.pairs, folder) if main else None)

    def micro_batches(self, step: int) -> Iterator[Any]:
        """This process's pieces of the batch of a step."""
        ordered = sorted(self.batches[step].tolist(), key=lambda index: self.batches.lengths[index])
        mine = ordered[self.accelerator.process_index :: self.accelerator.num_processes]
        examples = [self._example(index, step) for index in mine]
        lengths = [len(example) for example in examples]  # as they were made
        most = self.config.max_tokens or (16384 if self.accelerator.device.type == "cuda" else 2048)
        for piece in split(range(len(mine)), lengths, most, self.config.accumulate):
            yield self.run.task.collate([examples[place] for place in piece])

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
        """Metrics on dev, where open thresholds are tuned too. One process does it and tells the
        others."""
        found = self._evaluate() if self.accelerator.is_main_process else None
        metrics, self.run.task.config = _from_main(found)
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
        config, tuned = task.config, {}
        if self.tunes:
            config, predictions = task.tune(zip(golds, predictions, strict=True))
            tuned = {"threshold": round(config.threshold, 4)}
        return {**task.score(zip(golds, predictions, strict=True)), **tuned}, config

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

    def summary(self) -> dict[str, Any]:
        """The last line of `nlpkit train`."""
        result = self.run.config["result"]
        return {
            "run": str(self.run.folder),
            **{key: result[key] for key in ("monitor", "value", "seconds")},
        }

    def rehearse(self) -> tuple[int, float]:
        """Forward and backward of the longest batch: (examples in it, peak memory in MiB)."""
        longest = max(
            range(self.batches.per_epoch),
            key=lambda step: self.batches.lengths[self.batches[step]].sum(),
        )
        for batch in self.micro_batches(longest):
            with self.accelerator.autocast():
                loss_B = self.run.model(batch.to(self.accelerator.device))
            loss_B.sum().backward()
        self.state.optimizer.step()  # its moments take memory too
        return len(self.batches[longest]), peak_memory(self.accelerator.device)

    def _finish(self) -> None:
        """Notes what was reached, writes the model card, and drops the checkpoint."""
        run, monitor = self.run, self.run.task.monitor
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


def _from_main(value: Any) -> Any:
    """The main process's value, in every process."""
    box = [value]
    broadcast_object_list(box)
    return box[0]


def _read(plan: Plan) -> tuple[Records, Records]:
    if plan.dev:
        return read_records(plan.data), read_records(plan.dev)
    return split_by_content(plan.data)


def _describe_data(plan: Plan, train: Records, dev: Records) -> dict[str, Any]:
    return {
        "train": list(plan.data),
        "dev": list(plan.dev) or "a tenth of train, by content",
        "train_lines": len(train.pairs),
        "dev_lines": len(dev.pairs),
        "train_sha256": train.sha256,
        "dev_sha256": dev.sha256,
    }


def refuse_differences(old: dict[str, Any], new: dict[str, Any], path: str = "") -> None:
    """Raises SettingsError with the first thing in which the plan differs from the run to
    resume."""
    for key in new:
        where = f"{path}.{key}" if path else key
        if key == "versions" or old.get(key) == new[key]:
            continue
        if isinstance(new[key], dict) and isinstance(old.get(key), dict):
            refuse_differences(old[key], new[key], where)
        else:
            raise SettingsError(
                f"cannot resume: {where} is now {new[key]!r}, the run has {old.get(key)!r}",
                hint="--force starts anew, --out names another folder",
            )
