"""Which batches may not be cut, and the settings that would cut them."""

from __future__ import annotations

from typing import Any

from nlpkit.errors import SettingsError
from nlpkit.task import CoupledModel
from nlpkit.training.batching import Batches
from nlpkit.training.settings import TrainConfig


def must_stay_whole(task: Any, model: Any) -> bool:
    """Whether the batch of a step may not be cut: its loss couples the examples, and the model does
    not say through what."""
    return task.couples_examples and not isinstance(model, CoupledModel)


def refuse_cuts(task: str, config: TrainConfig, batches: Batches, processes: int) -> None:
    """Raises SettingsError where settings would cut a batch of a task whose loss couples the
    examples of a batch: the parts of such a batch have another loss than the whole."""
    why = f"the loss of {task} couples the examples of a batch, which must stay whole"
    if processes > 1:
        raise SettingsError(f"--processes: {why}: expected 1, got {processes}")
    if config.accumulate > 1:
        raise SettingsError(f"train.accumulate: {why}: expected 1, got {config.accumulate}")
    if config.max_tokens is None:
        return
    if config.batch_by == "tokens":
        raise SettingsError(f"train.max_tokens: {why}: expected none, got {config.max_tokens}")
    largest = min(config.batch_size, len(batches.lengths)) * int(batches.lengths.max())
    if config.max_tokens < largest:
        raise SettingsError(
            f"train.max_tokens: {why}: expected none or at least {largest}, "
            f"got {config.max_tokens}",
            hint="a smaller train.batch_size needs less memory",
        )
