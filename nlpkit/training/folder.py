"""The folder of a training: what may be done to what it holds. That one training alone does it, see
`nlpkit.folder_lock`."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from nlpkit.errors import SettingsError
from nlpkit.folder_lock import beside
from nlpkit.inference.devices import from_main
from nlpkit.training.checkpoints import CHECKPOINT


def is_to_resume(
    folder: Path, what: str, known: bool, finished: bool, wanted: bool, force: bool
) -> bool:
    """Whether what is in the folder is to be continued. Raises SettingsError where it may not be
    overwritten.

    Args:
        folder: the user's `--out`.
        what: "run" or "pretraining", for the messages.
        known: whether the folder holds one.
        finished: whether that is done.
        wanted: --resume auto.
        force: --force.
    """
    has_checkpoint = known and not finished and (folder / CHECKPOINT).exists()
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder}: is no folder", hint="choose another --out")
    if not known and folder.exists() and any(not is_scrap(path) for path in folder.iterdir()):
        raise SettingsError(
            f"{folder}: holds something that is no {what}", hint="choose another --out"
        )
    if finished and not force:
        raise SettingsError(
            f"{folder}: holds a finished {what}", hint="--force overwrites it, --out names another"
        )
    if has_checkpoint and not wanted and not force:
        raise SettingsError(
            f"{folder}: holds an unfinished {what}",
            hint="--resume auto continues it, --force overwrites it",
        )
    return has_checkpoint and wanted and not force


def refuse_separate_disks(out: Path, accelerator: Any) -> None:
    """Raises SettingsError, in every process, where not all see the folder in which `out` lies: the
    first process writes the run, and all read it."""
    if accelerator.num_processes == 1:
        return
    from accelerate.utils import gather_object

    mark = beside(out, f"seen-{from_main(uuid.uuid4().hex)}")
    if accelerator.is_main_process:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    accelerator.wait_for_everyone()
    seen = gather_object([mark.exists()])
    if accelerator.is_main_process:
        mark.unlink()
    if not all(seen):
        raise SettingsError(
            f"{out}: not all processes see this folder",
            hint="--out on storage that all machines share, under one name",
        )


def is_scrap(path: Path) -> bool:
    """Whether a file was being written under a temporary name (`write_atomic`)."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def remove_scraps(folder: Path) -> None:
    """Removes what a process left, in the folder and beside it, that was killed while it wrote."""
    for path in folder.iterdir():
        if is_scrap(path):
            path.unlink(missing_ok=True)
    shutil.rmtree(beside(folder, "new"), ignore_errors=True)
    shutil.rmtree(beside(folder, "old"), ignore_errors=True)


def new_folder(out: Path) -> Path:
    """An empty folder beside `out`, to be put in its place when it is whole. Raises SettingsError
    where there cannot be one."""
    new = beside(out, "new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
    except OSError as error:
        raise SettingsError(f"{out}: cannot be written: {error.strerror}") from None
    return new


def put_in_place(new: Path, out: Path) -> None:
    """Gives a new folder its name; what had it goes, whole. Raises SettingsError where it cannot.

    A process that is killed meanwhile leaves the old folder, the new one, or none of that name.
    """
    old = beside(out, "old")
    place = os.path.realpath(out)
    try:
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            os.rename(place, old)
        os.rename(new, place)
    except OSError as error:
        raise SettingsError(f"{out}: cannot be written: {error.strerror}") from None
    shutil.rmtree(old, ignore_errors=True)


def refuse_differences(old: dict[str, Any], new: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raises SettingsError with the first thing in which a plan differs from the run to go on with.

    Args:
        old: the config of the run, as read from JSON.
        new: that of the plan; versions may differ.
        defaults: what the run has of the settings that its config does not know, since they came
            later; they lie at the same places.
    """
    _refuse(old, json.loads(json.dumps(new)), json.loads(json.dumps(defaults)), "")


def _refuse(old: dict[str, Any], new: dict[str, Any], defaults: dict[str, Any], path: str) -> None:
    """The same of what is read from JSON; `path` is where in the config it lies."""
    for key in new:
        where = f"{path}.{key}" if path else key
        before = old.get(key, defaults.get(key))
        if key == "versions" or before == new[key]:
            continue
        if isinstance(new[key], dict) and isinstance(before, dict):
            _refuse(before, new[key], defaults.get(key) or {}, where)
        else:
            raise SettingsError(
                f"cannot resume: {where} is now {new[key]!r}, the run has {before!r}",
                hint="--force starts anew, --out names another folder",
            )
