"""Made-up training data, one module per task, so that every task can be tried at once and with no
download.

A module is named as its task and has `records(count, seed)`, a generator of the task's JSONL
records with gold, and, for a task with a knowledge base, `knowledge_base(count, seed)`, its lines;
"_" in front: shared by them. The same seed gives the same records on every machine. All names are
invented (see `_world`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from nlpkit.errors import SettingsError, did_you_mean


def tasks() -> list[str]:
    """The tasks that have made-up data, in alphabetical order."""
    modules = pkgutil.iter_modules(__path__)
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def records(task: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` records of a task; `-` and `_` in its name are the same. Raises SettingsError for an
    unknown task."""
    return _module(task).records(count, seed)


def knowledge_base(task: str, count: int, seed: int) -> Iterator[str]:
    """The lines of the knowledge base that these records are about. Raises SettingsError for a task
    without one."""
    module = _module(task)
    if not hasattr(module, "knowledge_base"):
        raise SettingsError(f"data sample: {task} has no knowledge base")
    return module.knowledge_base(count, seed)


def _module(task: str) -> Any:
    name = task.replace("-", "_")
    known = tasks()
    if name not in known:
        message = f'data sample: no made-up data for task "{task}"{did_you_mean(name, known)}'
        raise SettingsError(message, hint=f"tasks that have some: {', '.join(known)}")
    return importlib.import_module(f"{__name__}.{name}")
