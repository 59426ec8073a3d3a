"""The model of several tasks: theirs, around one encoder.

Legend: B examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class TaskBatch:
    """A micro-batch of one of the tasks. `factor` is that of its losses: the examples of the step
    over those of this task, so that the sum over all examples of the step, divided by their number,
    is the sum of the tasks' mean losses."""

    task: str
    batch: Any
    factor: float

    def to(self, device: Any) -> TaskBatch:
        """The batch on a device."""
        return replace(self, batch=self.batch.to(device))


class MultiModel(nn.Module):
    """The models of the tasks, which have the same encoder object; `loss_names` are the tasks."""

    def __init__(self, models: Mapping[str, nn.Module]):
        super().__init__()
        self.loss_names = tuple(models)
        self.encoder: Any = models[self.loss_names[0]].encoder
        self.models = nn.ModuleDict(models)

    def forward(self, batch: TaskBatch) -> torch.Tensor:
        """The loss of each example, times the factor of its task: (B,)."""
        return self.models[batch.task](batch.batch) * batch.factor

    def losses(self, batch: TaskBatch) -> dict[str, torch.Tensor]:
        """The same under the name of the task."""
        return {batch.task: self(batch)}

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        """As of any module, with the weights of the encoder once."""
        tensors = super().state_dict(*arguments, **options)
        return {name: tensor for name, tensor in tensors.items() if not self._is_again(name)}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], *arguments: Any, **options: Any
    ) -> Any:
        """Takes what `state_dict` gives."""
        tensors = dict(state_dict)
        for name in self.loss_names:
            for key, tensor in state_dict.items():
                if key.startswith("encoder."):
                    tensors[f"models.{name}.{key}"] = tensor
        return super().load_state_dict(tensors, *arguments, **options)

    def _is_again(self, name: str) -> bool:
        return any(name.startswith(f"models.{task}.encoder.") for task in self.loss_names)
