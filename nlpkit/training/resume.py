"""Opening a run directory for training: a new one, made whole or not at all, or the one there
continued.

Whoever trains holds the folder with `claimed` meanwhile.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from nlpkit.errors import SettingsError
from nlpkit.inference.devices import from_main
from nlpkit.run import read_config
from nlpkit.training.checkpoints import CHECKPOINT, read_state
from nlpkit.training.fit import new_fit, run_summary
from nlpkit.training.folder import (
    is_to_resume,
    new_folder,
    put_in_place,
    refuse_differences,
    remove_scraps,
)
from nlpkit.training.multitask.fit import multi_summary, new_multi_fit
from nlpkit.training.multitask.plan import MultiPlan
from nlpkit.training.plan import Plan, load_data, load_encoder, load_parts


def finished_summary(plan: Plan, accelerator: Any) -> dict[str, Any] | None:
    """The summary of what lies in `plan.out` where that is finished and what the plan asks for; None
    where there is something left to do.

    So the same command, given again and again until it succeeds, comes to an end. Raises
    SettingsError where the run there is finished, but another one.
    """
    if plan.force or plan.resume == "never":
        return None
    olds = _old_configs(plan)
    if not _are_finished(plan, olds):
        return None
    try:
        shared = load_encoder(plan)
        for run, old in zip(plan.runs, olds, strict=True):
            new = load_parts(run, load_data(run, accelerator), accelerator, shared).config
            refuse_differences(old, new, run.defaults())
    except SettingsError as error:
        reason = error.message.removeprefix("cannot resume: ")
        raise SettingsError(
            f"{plan.out}: holds a finished run: {reason}",
            hint="--force overwrites it, --out names another",
        ) from None
    if accelerator.is_main_process:  # a process may have been killed right after it was done
        (plan.out / CHECKPOINT).unlink(missing_ok=True)
        _remove_scraps(plan)
    if isinstance(plan, MultiPlan):
        return multi_summary(plan.out, olds)
    return run_summary(plan.out, olds[0])


def open_fit(plan: Plan, accelerator: Any) -> Any:
    """A new training in `plan.out`, or the one in it continued: a `Fit`, or a `MultiFit` where the
    plan is of several tasks.

    Raises SettingsError where the folder holds something else, a finished run without `force`, or a
    run that differs.
    """
    folder = plan.out
    olds = _old_configs(plan)
    known = len(olds) == len(plan.runs)
    what = f"run of {plan.task}" if isinstance(plan, MultiPlan) else "run"
    finished = _are_finished(plan, olds)
    resume = is_to_resume(folder, what, known, finished, plan.resume == "auto", plan.force)
    accelerator.wait_for_everyone()
    if not resume:
        return _new_fit(plan, accelerator)
    if accelerator.is_main_process:
        _remove_scraps(plan)
    fit = start_fit(plan, accelerator, folder, olds)
    read_state(fit.state, folder)
    return fit


def start_fit(
    plan: Plan, accelerator: Any, folder: Path, olds: list[dict[str, Any]] | None = None
) -> Any:
    """The training of a plan in a folder that exists.

    `olds` are the configs of its runs where they are continued. Raises as `build_run`.
    """
    if isinstance(plan, MultiPlan):
        return new_multi_fit(plan, accelerator, folder, olds or [])
    return new_fit(plan, accelerator, folder, olds[0] if olds else None)


def _old_configs(plan: Plan) -> list[dict[str, Any]]:
    """Those of the runs of the plan that are there, in order."""
    folders = [run.out for run in plan.runs]
    return [read_config(folder) for folder in folders if (folder / "config.json").exists()]


def _are_finished(plan: Plan, olds: list[dict[str, Any]]) -> bool:
    """Whether all runs of the plan are there and done."""
    return len(olds) == len(plan.runs) and all("result" in old for old in olds)


def _remove_scraps(plan: Plan) -> None:
    for folder in {plan.out, *(run.out for run in plan.runs)}:
        remove_scraps(folder)


def _new_fit(plan: Plan, accelerator: Any) -> Any:
    """A new training. Its folder is made under another name, so that it appears whole or not at
    all."""
    new = from_main(new_folder(plan.out) if accelerator.is_main_process else None)
    try:
        fit = start_fit(plan, accelerator, new)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            fit.save_new()
            put_in_place(new, plan.out)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    accelerator.wait_for_everyone()
    fit.move(plan.out)
    return fit
