"""Opening a trained model for prediction: what the filter, the service and the shards have in
common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nlpkit import encoders
from nlpkit.config import Values
from nlpkit.inference.devices import resolve_device
from nlpkit.inference.predictor import Long, Predictor
from nlpkit.inference.seeds import best_run
from nlpkit.run import load
from nlpkit.run_files import file_sha256

IDLE = {"metrics.jsonl", "README.md", "checkpoint.safetensors"}
"""Files of a run that no prediction depends on."""


@dataclass(frozen=True)
class Opening:
    """A run and how to predict with it. It can be sent to another process, which opens it there."""

    run: str
    """A run, a folder of seeds (its best run), or an encoder."""
    device: str = "auto"
    kb: str | None = None
    """Another knowledge base than that of the training."""
    values: Values = field(default_factory=dict)
    """Settings in the place of those of the training."""
    batch_size: int = 64
    long: Long = "split"

    def predictor(self, on_batch: Callable[[int, int], None] | None = None) -> Predictor:
        """Loads the run. Raises SettingsError; for `on_batch` see `Predictor`."""
        run = load(best_run(Path(self.run)), resolve_device(self.device), self.kb, self.values)
        return Predictor(
            run.task, run.model, run.precision, self.batch_size, self.long, on_batch=on_batch
        )

    def sha256(self) -> str:
        """A hash of all that decides what a line gives: files of the run, knowledge base,
        settings. Raises SettingsError where a file cannot be read."""
        folder = encoders.folder_of(best_run(Path(self.run)))
        parts: dict[str, object] = {"values": self.values, "long": self.long}
        if self.kb is not None:
            parts["kb"] = file_sha256(Path(self.kb))
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name not in IDLE and not name.startswith("."):
                parts[f"file {name}"] = file_sha256(path)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
