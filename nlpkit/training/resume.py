"""Opening a run directory for training: a new one, made whole or not at all, or the one there
continued.

Whoever trains holds the folder with `claimed` meanwhile.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

from nlpkit.errors import SettingsError
from nlpkit.inference.devices import from_main
from nlpkit.run import read_config
from nlpkit.training.checkpoints import CHECKPOINT, read_state
from nlpkit.training.fit import Fit, new_fit, run_summary
from nlpkit.training.folder import (
    is_to_resume,
    new_folder,
    put_in_place,
    refuse_differences,
    remove_scraps,
)
from nlpkit.training.plan import Plan, load_data, load_parts


def finished_summary(plan: Plan, accelerator: Any) -> dict[str, Any] | None:
    """The summary of the run in `plan.out` where that is finished and what the plan asks for; None
    where there is something left to do.

    So the same command, given again and again until it succeeds, comes to an end. Raises
    SettingsError where the run there is finished, but another one.
    """
    folder = plan.out
    if plan.force or plan.resume == "never" or not (folder / "config.json").exists():
        return None
    old = read_config(folder)
    if "result" not in old:
        return None
    try:
        new = load_parts(plan, load_data(plan, accelerator), accelerator).config
        refuse_differences(old, json.loads(json.dumps(new)))
    except SettingsError as error:
        reason = error.message.removeprefix("cannot resume: ")
        raise SettingsError(
            f"{folder}: holds a finished run: {reason}",
            hint="--force overwrites it, --out names another",
        ) from None
    if accelerator.is_main_process:  # a process may have been killed right after it was done
        (folder / CHECKPOINT).unlink(missing_ok=True)
        remove_scraps(folder)
    return run_summary(folder, old)


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
    if accelerator.is_main_process:
        remove_scraps(folder)
    fit = new_fit(plan, accelerator, folder, old)
    read_state(fit.state, folder)
    return fit


def _new_fit(plan: Plan, accelerator: Any) -> Fit:
    """A new training. Its folder is made under another name, so that it appears whole or not at
    all."""
    new = from_main(new_folder(plan.out) if accelerator.is_main_process else None)
    try:
        fit = new_fit(plan, accelerator, new)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            fit.run.save_new()
            put_in_place(new, plan.out)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    accelerator.wait_for_everyone()
    fit.run.folder = plan.out
    return fit
