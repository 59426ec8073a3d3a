"""A folder of runs that differ in their seed, `OUT/seed-1`, `OUT/seed-2` ..., as `train --seeds`
writes it, used as one."""

from __future__ import annotations

import re
from pathlib import Path

from nlpkit.errors import SettingsError
from nlpkit.run import read_config

_NAME = re.compile(r"seed-(\d+)")


def seed_folder(out: Path, seed: int) -> Path:
    """The run of a seed below the folder of all."""
    return out / f"seed-{seed}"


def runs_below(folder: Path) -> list[Path]:
    """The runs of the seeds in a folder, by seed; empty where it holds none."""
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match and (path / "config.json").exists():
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found)]


def best_run(folder: Path) -> Path:
    """The run with the best value of its monitor on dev; the folder itself where it holds no seeds.

    Of equal ones the first. Raises SettingsError where none of the seeds is finished.
    """
    runs = runs_below(folder)
    if not runs:
        return folder
    values = {}
    for run in runs:
        result = read_config(run).get("result")
        if result is not None:
            values[run] = result["value"]
    if not values:
        raise SettingsError(
            f"{folder}: no finished run among its seeds",
            hint="the same nlpkit train command goes on with them",
        )
    return max(values, key=lambda run: values[run])
