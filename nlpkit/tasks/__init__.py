"""A task is a file or a folder here and has its name; "_" in front: shared by tasks. Nothing is
registered."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from nlpkit.errors import SettingsError, did_you_mean
from nlpkit.task import KnowledgeBase


def names() -> list[str]:
    """The tasks that exist: the files and folders here without "_" in front."""
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")
    )


def section_name(name: str) -> str:
    """The name of a task's file and section of settings: `-` and `_` are the same."""
    return name.replace("-", "_")


def load(name: str) -> Any:
    """The class `Task` of the task `name`. Raises SettingsError for an unknown one."""
    wanted = section_name(name)
    if wanted not in names():
        raise SettingsError(
            f'unknown task "{name}"{did_you_mean(wanted, names())}',
            hint=f"tasks: {', '.join(names())}",
        )
    return importlib.import_module(f"nlpkit.tasks.{wanted}").Task


def kb_values(name: str, path: str | None) -> dict[str, dict[str, Any]]:
    """The settings of the task `name` that `--kb path` stands for, by section; {} for None.

    Raises SettingsError where the task has no knowledge base.
    """
    if path is None:
        return {}
    return {section_name(name): load_with_kb(name).kb_settings(path)}


def load_with_kb(name: str) -> Any:
    """As `load`. Raises SettingsError too where the task has no knowledge base."""
    task_class = load(name)
    if not issubclass(task_class, KnowledgeBase):
        with_kb = [other for other in names() if issubclass(load(other), KnowledgeBase)]
        raise SettingsError(
            f"task {section_name(name)} has no knowledge base",
            hint=f"tasks that have one: {', '.join(with_kb)}",
        )
    return task_class
