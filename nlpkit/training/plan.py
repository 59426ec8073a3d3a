"""From a plan to a run ready to be trained: its settings, its data, its task and model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nlpkit import encoders, tasks
from nlpkit.config import Values, build, defaults_of, resolve
from nlpkit.errors import DataError, SettingsError
from nlpkit.inference.devices import from_main
from nlpkit.inference.precision import choose
from nlpkit.run import Run, describe
from nlpkit.text.backend import vocabulary_hash
from nlpkit.text.tokenizer import Tokenizer
from nlpkit.training.dataset import Records, read_records
from nlpkit.training.folder import refuse_differences
from nlpkit.training.settings import TrainConfig
from nlpkit.training.split import split_by_content


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
    together: tuple[str, ...] = ()
    """All tasks of the training, in order, where there are several."""

    @property
    def runs(self) -> tuple[Plan, ...]:
        """The plans of the runs that the training makes: this one."""
        return (self,)

    @property
    def record(self) -> Path:
        """The config in which the training notes what it has measured."""
        return self.runs[0].out / "config.json"

    @property
    def may_resume(self) -> bool:
        """Whether a training in `out` that is not finished is to be continued."""
        return self.resume == "auto" and not self.force

    def settings(self) -> dict[str, Any]:
        """The settings of all sections: `train`, `encoder`, and one with the name of the task.
        Raises SettingsError, also for files that are named as those of several tasks are."""
        for option, files in (("--data", self.data), ("--dev", self.dev)):
            for file in files:
                refuse_named_file(option, self.task, file)
        return resolve(self._sections(), *self.values)

    def defaults(self) -> dict[str, Any]:
        """The part of the config of a run in which nothing is set: for `refuse_differences`."""
        settings = {name: defaults_of(section) for name, section in self._sections().items()}
        return {"settings": settings, "encoder": {"spec": {"config": settings["encoder"]}}}

    def _sections(self) -> dict[str, type]:
        return {
            "train": TrainConfig,
            "encoder": encoders.settings_of(self.encoder),
            tasks.section_name(self.task): tasks.load(self.task).Config,
        }


def refuse_named_file(option: str, task: str, file: str) -> None:
    """Raises SettingsError for `task=path` where that is no file and one task trains alone."""
    name, equals, path = file.partition("=")
    if not equals or tasks.section_name(name) not in tasks.names() or Path(file).exists():
        return
    raise SettingsError(
        f'{option}: {task} trains alone: expected a file, got "{file}"',
        hint=f"{option} {path}; TASK=FILE is for several tasks with one encoder: "
        "nlpkit train gplinker+ner",
    )


@dataclass(frozen=True)
class Data:
    """The records of a training."""

    train: Records
    dev: Records
    unlabelled: Records | None = None
    """Those of `train.unlabelled`, None where it names no files."""

    def describe(self, plan: Plan) -> dict[str, Any]:
        """What the run's config says of them."""
        said = {
            "train": list(plan.data),
            "dev": list(plan.dev) or "a tenth of train, by content",
            "train_lines": len(self.train.pairs),
            "dev_lines": len(self.dev.pairs),
            "train_sha256": self.train.sha256,
            "dev_sha256": self.dev.sha256,
        }
        if self.unlabelled is not None:
            said["unlabelled_lines"] = len(self.unlabelled.pairs)
            said["unlabelled_sha256"] = self.unlabelled.sha256
        return said

    @property
    def hashes(self) -> list[str]:
        """What tells the data from others."""
        parts = [self.train, self.dev, self.unlabelled]
        return [part.sha256 for part in parts if part is not None]


def load_data(plan: Plan, accelerator: Any) -> Data:
    """The records of the plan's files; without dev files a tenth of the data is kept for it.

    They are read once and held in memory, so that a file may change during the training. Raises
    DataError for a wrong line, and where processes have read different ones.
    """
    unlabelled = plan.settings()["train"].unlabelled
    data = Data(*_read(plan), read_records(unlabelled) if unlabelled else None)
    if accelerator.num_processes > 1:
        mine = data.hashes
        if from_main(mine) != mine:
            files = ", ".join([*plan.data, *plan.dev, *unlabelled])
            raise DataError(f"{files}: changed while the processes read it")
    return data


def _read(plan: Plan) -> tuple[Records, Records]:
    if plan.dev:
        return read_records(plan.data), read_records(plan.dev)
    return split_by_content(plan.data)


@dataclass(frozen=True)
class Parts:
    """What a run is made of, before its task has seen the data, and the `config.json` of it."""

    encoder: Any
    tokenizer: Tokenizer
    task_config: Any
    config: dict[str, Any]


Shared = tuple[Any, Tokenizer]
"""An encoder and its tokenizer."""


def load_encoder(plan: Plan) -> Shared:
    """The encoder with fresh or pretrained weights, and its tokenizer; with a masked-LM head where a
    task of the training needs one.

    Seeds torch's generator, since weights may be drawn at random. Raises SettingsError.
    """
    settings = plan.settings()
    torch.manual_seed(settings["train"].seed)
    names = [tasks.section_name(run.task) for run in plan.runs]
    head = any(tasks.load(name).needs_head(settings[name]) for name in names)
    return encoders.load(plan.encoder, settings["encoder"], head=head)


def load_parts(plan: Plan, data: Data, accelerator: Any, shared: Shared | None = None) -> Parts:
    """The encoder, which is new unless it is shared with other tasks, and the settings completed.

    Raises SettingsError.
    """
    settings = plan.settings()
    name = tasks.section_name(plan.task)
    encoder, tokenizer = shared or load_encoder(plan)
    settings["train"] = settings["train"].completed(encoder.learns_as)
    config = describe(name, plan.encoder, settings, data.describe(plan))
    if plan.together:
        config["together"] = list(plan.together)
    config["encoder"]["spec"] = encoder.spec()
    config["tokenizer_sha256"] = vocabulary_hash(tokenizer.backend)
    config["processes"] = accelerator.num_processes
    config["precision"] = accelerator.mixed_precision
    config["device"] = accelerator.device.type
    return Parts(encoder, tokenizer, settings[name], config)


def _precision_choice(
    accelerator: Any, config: dict[str, Any], old: dict[str, Any] | None
) -> dict[str, Any]:
    """The precision of the training and of the run's predictions, each with the reason; a continued
    run keeps its own."""
    if old is not None and "precision_choice" in old:
        return old["precision_choice"]
    wanted = config["settings"]["train"]["precision"]
    prediction = choose(wanted, accelerator.device, "prediction")
    training = accelerator.precision_choice
    return {"training": asdict(training), "prediction": asdict(prediction)}


def build_run(
    plan: Plan,
    data: Data,
    accelerator: Any,
    folder: Path,
    old: dict[str, Any] | None = None,
    shared: Shared | None = None,
) -> Run:
    """The run with its task and untrained model.

    Args:
        plan: what to do.
        data: its records, from which the task prepares what it needs.
        accelerator: an `accelerate.Accelerator` (see `nlpkit.inference.devices`).
        folder: where files are written; it exists.
        old: the `config.json` of the run to continue, None for a new one. Raises SettingsError
            where the plan differs.
        shared: the encoder of the tasks that train together; None for a new one.
    """
    parts = load_parts(plan, data, accelerator, shared)
    config = parts.config
    task_class = tasks.load(plan.task)
    if old is not None:
        refuse_differences(old, config, plan.defaults())
        config["encoder"] = old["encoder"]  # as the weights that are saved already know it
        task_config = build(task_class.Config, old["prepared"], config["task"])
    else:
        is_main = accelerator.is_main_process
        task_config = from_main(
            task_class.prepare(parts.task_config, data.train.pairs, folder) if is_main else None
        )
    config["prepared"] = asdict(task_config)
    config["precision_choice"] = _precision_choice(accelerator, config, old)
    task = task_class(task_config, parts.tokenizer, folder)
    return Run(folder, config, task, parts.tokenizer, task.build_model(parts.encoder))
