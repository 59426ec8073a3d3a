"""What the user asked for who trains several tasks together: `nlpkit train gplinker+ner`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nlpkit import encoders, tasks
from nlpkit.config import Values, resolve
from nlpkit.errors import SettingsError, did_you_mean
from nlpkit.training.plan import Plan
from nlpkit.training.settings import TrainConfig

PLUS = "+"
"""Between the names of tasks that train together."""


class MultiPlan(Plan):
    """A plan whose `task` is the names of several, joined by "+", and whose files are
    `task=file`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks, in order."""
        return names_of(self.task)

    @property
    def runs(self) -> tuple[Plan, ...]:
        """The plan of each task, whose run lies in a folder of `out`. Raises SettingsError."""
        data = by_task("--data", self.names, self.data)
        dev = by_task("--dev", self.names, self.dev)
        for name in self.names:
            if not data[name]:
                raise SettingsError(
                    f"--data: none for {name}", hint=f"--data {name}=FILE, one or more for each"
                )
        return tuple(self._run(name, data[name], dev[name]) for name in self.names)

    def _run(self, name: str, data: tuple[str, ...], dev: tuple[str, ...]) -> Plan:
        own = []
        for values in self.values:
            own.append({key: values[key] for key in ("train", "encoder", name) if key in values})
        return Plan(
            task=name,
            data=data,
            dev=dev,
            out=self.out / name,
            encoder=self.encoder,
            values=tuple(own),
            device=self.device,
            resume=self.resume,
            force=self.force,
            together=self.names,
        )

    def settings(self) -> dict[str, Any]:
        """The settings of all sections: `train`, `encoder`, and one for each task. Raises
        SettingsError."""
        sections = {"train": TrainConfig, "encoder": encoders.settings_of(self.encoder)}
        sections |= {name: tasks.load(name).Config for name in self.names}
        settings = resolve(sections, *self.values)
        self.runs  # noqa: B018 - refuses files that belong to no task, and a task without any
        return settings


def names_of(task: str) -> tuple[str, ...]:
    """The names in "gplinker+ner". Raises SettingsError for an unknown one, and where one is named
    twice."""
    names = tuple(map(tasks.section_name, task.split(PLUS)))
    for place, name in enumerate(names):
        tasks.load(name)
        if name in names[:place]:
            raise SettingsError(
                f"{task}: {name} is named twice",
                hint=f"files of one kind go together: --data {name}=ONE --data {name}=OTHER",
            )
    return names


def by_task(option: str, names: Sequence[str], files: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The files of each task, in order, from `task=file`. Raises SettingsError for another form."""
    found: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    for file in files:
        name, equals, path = file.partition("=")
        name = tasks.section_name(name)
        if not equals or name not in found or not path:
            near = did_you_mean(name, names) if equals else ""
            some = " or ".join(f"{one}=FILE" for one in names)
            raise SettingsError(f'{option}: expected {some}, got "{file}"{near}')
        found[name] += (path,)
    return found


def kb_values(task: str, kb: str | None) -> Values:
    """The settings that `--kb` stands for: `task=file` where several train together. Raises
    SettingsError where the task has no knowledge base."""
    if PLUS not in task:
        return tasks.kb_values(task, kb)
    values: Values = {}
    for name, files in by_task("--kb", names_of(task), [] if kb is None else [kb]).items():
        for path in files:
            values |= tasks.kb_values(name, path)
    return values
