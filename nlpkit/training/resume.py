"""Opening a run directory for training: a new one, made whole or not at all, or the one there
continued."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from nlpkit.errors import SettingsError
from nlpkit.run import read_config
from nlpkit.training.checkpoints import CHECKPOINT, read_state
from nlpkit.training.fit import Fit, Plan


def open_fit(plan: Plan, accelerator: Any) -> Fit:
    """A new training in `plan.out`, or the one in it continued.

    Raises SettingsError where the folder holds something else, a finished run without `force`, or a
    run that differs.
    """
    folder = plan.out
    old = read_config(folder) if (folder / "config.json").exists() else None
    finished = old is not None and "result" in old
    resume = is_to_resume(
        folder, "run", old is not None, finished, plan.resume == "auto", plan.force
    )
    accelerator.wait_for_everyone()
    if not resume:
        return _new_fit(plan, accelerator)
    fit = Fit(plan, accelerator, folder, old)
    read_state(fit.state, folder)
    return fit


def is_to_resume(
    folder: Path, what: str, known: bool, finished: bool, wanted: bool, force: bool
) -> bool:
    """Whether what is in the folder is to be continued. Raises SettingsError where it may not be
    overwritten.

    Args:
        folder: the user's `--out`.
        what: "run" or "pretraining", for the messages.
        known: whether the folder holds one; finished: and whether that is done.
        wanted: --resume auto.
        force: --force.
    """
    has_checkpoint = known and not finished and (folder / CHECKPOINT).exists()
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder}: is no folder", hint="choose another --out")
    if not known and folder.exists() and any(folder.iterdir()):
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
    resume = has_checkpoint and wanted and not force
    for scrap in (
        folder.glob(".*.tmp") if resume else ()
    ):  # of a process that was killed while it wrote
        scrap.unlink(missing_ok=True)
    return resume


def _new_fit(plan: Plan, accelerator: Any) -> Fit:
    """A new training. Its folder is made under another name, so that it appears whole or not at
    all."""
    out = plan.out.resolve()
    new = out.with_name(f".{out.name}.new")
    if accelerator.is_main_process:
        remake(new)
    accelerator.wait_for_everyone()
    try:
        fit = Fit(plan, accelerator, new)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            fit.run.save_new()
            shutil.rmtree(out, ignore_errors=True)
            new.rename(out)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    accelerator.wait_for_everyone()
    fit.run.folder = plan.out
    return fit


def remake(folder: Path) -> None:
    """An empty folder in place of what was there."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise SettingsError(f"{folder.parent}: cannot be written: {error.strerror}") from None
