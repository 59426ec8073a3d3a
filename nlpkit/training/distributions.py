"""A trait of a model: it predicts distributions, which techniques compare with each other.

Legend: B examples, N decisions of an example, L values of a decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, get_type_hints, runtime_checkable

import torch

from nlpkit import tasks
from nlpkit.errors import SettingsError
from nlpkit.training.multitask.model import MultiModel
from nlpkit.training.state import TrainState


@runtime_checkable
class DistributionModel(Protocol):
    """A model whose `forward` calls `outputs` once, and makes the loss of what it gives."""

    def outputs(self, batch: Any) -> Any:
        """Logits or scores, in a form of the model's own."""
        ...

    def log_probs(self, outputs: Any) -> torch.Tensor:
        """The distributions of outputs: (B, N, L). A place that is no decision, as padding, has the
        same numbers whatever the weights are."""
        ...


def refuse_without(model: Any, technique: str) -> None:
    """Raises SettingsError for a model that is no `DistributionModel`, as that of several tasks."""
    if isinstance(model, DistributionModel):
        return
    if isinstance(model, MultiModel):
        raise SettingsError(
            f"train.techniques: {technique}: it compares distributions: expected one task, "
            f"got {', '.join(model.loss_names)}"
        )
    raise SettingsError(
        f"train.techniques: {technique}: it compares distributions, and the model of this task "
        "gives none",
        hint=f"tasks whose models do: {', '.join(tasks_with_distributions())}",
    )


def tasks_with_distributions() -> list[str]:
    """The names of the tasks that build a `DistributionModel`."""
    found = []
    for name in tasks.names():
        built = get_type_hints(tasks.load(name).build_model).get("return")
        if isinstance(built, type) and issubclass(built, DistributionModel):
            found.append(name)
    return found


def kl_divergence(p_BNL: torch.Tensor, q_BNL: torch.Tensor) -> torch.Tensor:
    """KL(p || q) of log-probabilities, summed over an example's decisions: (B,)."""
    return (p_BNL.exp() * (p_BNL - q_BNL)).sum((1, 2))


def log_probs_of(state: TrainState, batch: Any) -> torch.Tensor:
    """The distributions that the model being trained predicts for a batch: (B, N, L)."""
    model: Any = state.model
    with state.accelerator.autocast():
        outputs = model.outputs(batch.to(state.accelerator.device))
    return model.log_probs(outputs)


@contextmanager
def recorded_outputs(model: Any) -> Iterator[list[Any]]:
    """Within the block a list takes up what the model's `outputs` gives, call by call."""
    found: list[Any] = []
    outputs = model.outputs

    def recorder(batch: Any) -> Any:
        found.append(outputs(batch))
        return found[-1]

    model.outputs = recorder
    try:
        yield found
    finally:
        del model.outputs  # of this object: that of its class is there again
