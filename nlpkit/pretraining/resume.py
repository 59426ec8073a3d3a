"""Opening a directory for pretraining: a new one, or the one there continued.

Whoever pretrains holds the folder with `claimed` meanwhile.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nlpkit import encoders
from nlpkit.encoders import NOTICE, RECORD
from nlpkit.encoders.checkpoint.files import read_json
from nlpkit.errors import SettingsError
from nlpkit.pretraining.corpus import parse_source
from nlpkit.pretraining.pretrain import Pretraining, write_record
from nlpkit.pretraining.settings import PretrainPlan
from nlpkit.training.checkpoints import CHECKPOINT, read_state
from nlpkit.training.folder import (
    is_to_resume,
    new_folder,
    put_in_place,
    refuse_differences,
    remove_scraps,
)


def finished_summary(plan: PretrainPlan, is_main: bool) -> dict[str, Any] | None:
    """The summary of the pretraining in `plan.out` where that is finished and what the plan asks
    for; None where there is something left to do.

    So the same command, given again and again until it succeeds, comes to an end. The texts are
    compared by name. Raises SettingsError where the pretraining there is finished, but another one.
    """
    folder = plan.out
    if plan.force or plan.resume == "never" or not (folder / RECORD).exists():
        return None
    old = read_json(folder / RECORD)
    if "seconds" not in old:
        return None
    names = [{"file": text["file"], "weight": text["weight"]} for text in old["texts"]]
    try:
        refuse_differences({**old, "texts": names}, _asked(plan), plan.defaults())
    except SettingsError as error:
        reason = error.message.removeprefix("cannot resume: ")
        raise SettingsError(
            f"{folder}: holds a finished pretraining: {reason}",
            hint="--force overwrites it, --out names another",
        ) from None
    if is_main:  # a process may have been killed right after it was done
        (folder / CHECKPOINT).unlink(missing_ok=True)
        remove_scraps(folder)
        if plan.corpus is None:
            shutil.rmtree(folder / "corpus", ignore_errors=True)
    return {"encoder": str(folder), **old["reached"], "seconds": old["seconds"]}


def _asked(plan: PretrainPlan) -> dict[str, Any]:
    """What a record says of the plan, without reading the texts."""
    encoder, _ = plan.new_encoder()
    sources = [parse_source(text) for text in plan.texts]
    return {
        "pretrain": asdict(plan.config),
        "start": plan.start,
        "teacher": plan.described_teacher(),
        "shape": encoders.shape_of(encoder),
        "texts": [{"file": Path(path).name, "weight": weight} for path, weight in sources],
    }


def open_pretraining(plan: PretrainPlan, accelerator: Any) -> Pretraining:
    """A new pretraining in `plan.out`, or the one in it continued; raises as `open_fit`."""
    folder = plan.out
    old = read_json(folder / RECORD) if (folder / RECORD).exists() else None
    finished = old is not None and "seconds" in old
    resume = is_to_resume(
        folder, "pretraining", old is not None, finished, plan.resume == "auto", plan.force
    )
    plan.check()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process and resume:
        remove_scraps(folder)
    elif accelerator.is_main_process:
        new = new_folder(folder)
        write_record(new, {})  # by which the folder is known to hold a pretraining
        carry_notice(plan.start, new)
        put_in_place(new, folder)
    accelerator.wait_for_everyone()
    pretraining = Pretraining(plan, accelerator)
    if not resume and accelerator.is_main_process:
        write_record(folder, pretraining.record)
    if resume and old is not None:
        refuse_differences(old, pretraining.record, plan.defaults())
        read_state(pretraining.state, folder)
    return pretraining


def carry_notice(start: str | None, new: Path) -> None:
    """Whose weights a pretraining goes on from is said in what comes of them."""
    notice = encoders.folder_of(start or "") / NOTICE
    if start is not None and notice.is_file():
        shutil.copyfile(notice, new / NOTICE)
