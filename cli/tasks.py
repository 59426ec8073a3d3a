"""`nlpkit tasks`: what goes into every task and what comes out, read from its source."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import nlpkit
from cli.folders import modules_of
from cli.output import write_json

FOLDER = Path(nlpkit.__file__).parent / "tasks"
_PLACE = re.compile(r"^    (in|out)  +(.*)$")


def tasks() -> None:
    """List the tasks: what goes in and what comes out; JSON when piped."""
    found = [read_task(name) for name in task_names()]
    if not sys.stdout.isatty():
        write_json(*found)
        return
    from rich.markup import escape
    from rich.table import Table

    from cli.console import console

    table = Table("task", "what", "a line in", "a line out", show_lines=True)
    for task in found:
        table.add_row(*(escape(task[key]) for key in ("task", "what", "in", "out")))
    console().print(table)


def task_names() -> list[str]:
    """Those of `nlpkit.tasks.names`, which would import torch."""
    return modules_of("nlpkit/tasks")


def read_task(name: str) -> dict[str, Any]:
    """The task's first sentence, and the lines `in` and `out` of its docstring."""
    import ast

    path = FOLDER / name / "task.py"
    if not path.exists():
        path = FOLDER / f"{name}.py"
    docstring = ast.get_docstring(ast.parse(path.read_bytes())) or ""
    shown: dict[str, list[str]] = {"in": [], "out": []}
    place = None
    for line in docstring.splitlines():
        start = _PLACE.match(line)
        if start:
            place = start[1]
            shown[place].append(start[2].strip())
        elif place and line.startswith("     "):
            shown[place].append(line.strip())
        else:
            place = None
    sentence = " ".join(docstring.split("\n\n")[0].split())
    return {
        "task": name,
        "what": sentence,
        "in": " ".join(shown["in"]),
        "out": " ".join(shown["out"]),
    }
