"""What `metrics.jsonl` has, for TensorBoard too: `--set train.tensorboard=true` writes it to the folder
`tensorboard` of the run; `tensorboard --logdir runs` shows all runs.

The writer is torch's (`torch.utils.tensorboard`), which needs the package of that name.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from nlpkit.errors import SettingsError

FOLDER = "tensorboard"


def check_tensorboard() -> None:
    """Raises SettingsError where the package is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise SettingsError(
            "train.tensorboard: needs the package tensorboard",
            hint="pip install 'nlpkit[tensorboard]'; metrics.jsonl has the same figures without it",
        )


def write_evaluation(run: Path, line: dict[str, Any]) -> None:
    """Writes the numbers of a line of `metrics.jsonl`, in a file of its own. A continued training
    may meet its `step` again: TensorBoard then forgets what came from there on."""
    from torch.utils.tensorboard import SummaryWriter

    step = line["step"]
    with SummaryWriter(str(run / FOLDER), purge_step=step) as writer:
        for name, value in line.items():
            if name != "step" and isinstance(value, (int, float)):
                writer.add_scalar(name, value, step)
