"""Opening a directory for pretraining: a new one, or the one there continued."""

from __future__ import annotations

import json
from typing import Any

from nlpkit.encoders import RECORD
from nlpkit.encoders.checkpoint.files import read_json
from nlpkit.pretraining.pretrain import Pretraining, write_record
from nlpkit.pretraining.settings import PretrainPlan
from nlpkit.training.checkpoints import read_state
from nlpkit.training.fit import refuse_differences
from nlpkit.training.resume import is_to_resume, remake


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
    if not resume and accelerator.is_main_process:
        remake(folder)
        write_record(folder, {})  # from now on the folder is known to hold a pretraining
    accelerator.wait_for_everyone()
    pretraining = Pretraining(plan, accelerator)
    if not resume and accelerator.is_main_process:
        write_record(folder, pretraining.record)
    if resume and old is not None:
        refuse_differences(old, json.loads(json.dumps(pretraining.record)))
        read_state(pretraining.state, folder)
    return pretraining
