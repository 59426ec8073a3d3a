"""Opening a run directory for training: a new one, made whole or not at all, or the one there continued."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from nlpkit.errors import SettingsError
from nlpkit.fit import CHECKPOINT, Fit, Plan
from nlpkit.run import load_tensors, read_config


def open_fit(plan: Plan, accelerator: Any) -> Fit:
    """A new training in `plan.out`, or the one in it continued.

    Raises SettingsError where the folder holds something else, a finished run without `force`, or a run that differs.
    """
    folder = plan.out
    old = read_config(folder) if (folder / "config.json").exists() else None
    unfinished = old is not None and "result" not in old
    resume = unfinished and (folder / CHECKPOINT).exists() and plan.resume == "auto" and not plan.force
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder}: is no folder", hint="choose another --out")
    if old is None and folder.exists() and any(folder.iterdir()):
        raise SettingsError(f"{folder}: holds something that is no run", hint="choose another --out")
    if old is not None and not unfinished and not plan.force:
        raise SettingsError(f"{folder}: holds a finished run", hint="--force overwrites it, --out names another")
    if unfinished and not resume and not plan.force and (folder / CHECKPOINT).exists():
        raise SettingsError(
            f"{folder}: holds an unfinished run", hint="--resume auto continues it, --force overwrites it"
        )
    accelerator.wait_for_everyone()
    if resume:
        for scrap in folder.glob(".*.tmp"):  # of a process that was killed while it wrote
            scrap.unlink(missing_ok=True)
        fit = Fit(plan, accelerator, folder, old)
        fit.state.restore(*load_tensors(folder / CHECKPOINT))
        return fit
    return _new_fit(plan, accelerator)


def _new_fit(plan: Plan, accelerator: Any) -> Fit:
    """A new training. Its folder is made under another name, so that it appears whole or not at all."""
    out = plan.out.resolve()
    new = out.with_name(f".{out.name}.new")
    if accelerator.is_main_process:
        _remake(new)
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


def _remake(folder: Path) -> None:
    """An empty folder in place of what was there."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise SettingsError(f"{folder.parent}: cannot be written: {error.strerror}") from None
