"""Models whose weights are computed from sums over the data: one step over all of it, in place of a
training.

The step goes over the whole data once, in micro-batches, without gradients and without dropout; the
sums of several processes are added up. So it is the same for any order and any cut of the data, but
for rounding. All else of a run (evaluation, checkpoint, files) is as with a training.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Protocol, runtime_checkable

import torch

from nlpkit.errors import NlpkitError, SettingsError
from nlpkit.training.settings import TrainConfig
from nlpkit.training.state import TrainState
from nlpkit.training.step import MicroBatches, Total, TrainingStep

STILL_COUNT = ("seed", "precision", "accumulate", "max_tokens", "tensorboard")
"""The settings of training that also mean something for a computed model."""


@runtime_checkable
class ClosedFormModel(Protocol):
    """A trait of a model: it is computed, not trained."""

    def new_sums(self) -> Any:
        """The sums of no examples: a dataclass of tensors."""
        ...

    def add(self, sums: Any, batch: Any) -> int:
        """Adds what a batch on the model's device counts for; returns how many examples it has."""
        ...

    def solve(self, sums: Any) -> None:
        """Sets the weights from the sums over all examples."""
        ...


class ClosedFormStep:
    """The only step of such a model: call it with the micro-batches of the whole data. All
    processes must call it alike."""

    def __init__(self, state: TrainState):
        self.state = state

    def __call__(self, micro_batches: MicroBatches) -> Total:
        """Computes the weights. Raises NlpkitError where what the encoder gives is not finite."""
        state = self.state
        accelerator = state.accelerator
        model: Any = state.model
        model.eval()
        sums = model.new_sums()
        examples = 0
        with torch.no_grad(), accelerator.autocast():
            for batch in micro_batches():
                examples += model.add(sums, batch.to(accelerator.device))
        for field in fields(sums):
            total = accelerator.reduce(getattr(sums, field.name), "sum")
            if not torch.isfinite(total).all():
                raise NlpkitError("the encoder gives numbers that are not finite")
            setattr(sums, field.name, total)
        asked = [float(examples), float(state.interrupted)]
        asked_2 = torch.tensor(asked, device=accelerator.device, dtype=torch.float64)
        examples, interrupts = map(int, accelerator.reduce(asked_2, "sum").tolist())
        model.solve(sums)
        state.step += 1
        return Total(float("nan"), examples, interrupts > 0)


def step_of(state: TrainState) -> ClosedFormStep | TrainingStep:
    """The step of the state's model."""
    if isinstance(state.model, ClosedFormModel):
        return ClosedFormStep(state)
    return TrainingStep(state)


def refuse_training(task: str, config: TrainConfig, way: str) -> None:
    """Raises SettingsError for a setting of training that was changed and would change nothing.

    `way` is how the encoder learns (`learns_as`), from which `config` was completed.
    """
    default = TrainConfig().completed(way)
    for field in fields(config):
        value = getattr(config, field.name)
        usual = getattr(default, field.name)
        if field.name not in STILL_COUNT and value != usual:
            raise SettingsError(
                f"train.{field.name}: the model of {task} is computed, not trained: "
                f"expected {usual!r}, got {value!r}",
                hint="leave it out; such a model has no training steps",
            )
