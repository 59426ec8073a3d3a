"""The part `backward` of a step whose losses are weighed against each other: a gradient for each,
then their weighted sum.

Losses and gradients are added up over all micro-batches and processes before they are weighed, so
that a step does not depend on how it was cut. The main process then holds the whole gradient, the
others none, which `combine` adds up as it does all gradients.
Legend: B examples, L losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from nlpkit.errors import SettingsError
from nlpkit.training.perturbation import summed
from nlpkit.training.state import TrainState

Gradients = list[torch.Tensor | None]
"""Of some parameters, in their order; None where a loss does not depend on one."""


@runtime_checkable
class SeveralLosses(Protocol):
    """A trait of a model: its loss is a sum of losses that it also gives apart."""

    loss_names: tuple[str, ...]
    """Of all its losses, in order."""

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        """The losses of each example, by name: (B,) each, whose sum `forward` gives. What a batch
        says nothing of may be missing."""
        ...


def refuse_single(model: Any) -> None:
    """Raises SettingsError for a model with one loss, which cannot be weighed."""
    if isinstance(model, SeveralLosses):
        return
    raise SettingsError(
        "train.balance: the model of this task has one loss: expected sum",
        hint="several tasks can be weighed (nlpkit train gplinker+ner), and the losses of gplinker",
    )


def balanced_backward(
    state: TrainState,
    balance: Any,
    losses_of: Callable[[Any], dict[str, torch.Tensor]],
    parameters: Sequence[torch.Tensor],
    micro_batches: Callable[[], Iterable[Any]],
) -> torch.Tensor:
    """Adds the weighted sum of the losses' gradients to `.grad`, times the examples of the step as
    `combine` expects it; sums_2: the sum of the losses, not weighed, and the examples.

    `losses_of` gives those of a batch, as `SeveralLosses.losses` does. All processes must call it.
    """
    model: Any = state.model
    names: tuple[str, ...] = model.loss_names
    apart: list[Gradients] = [[None] * len(parameters) for _ in names]
    sums = torch.zeros(len(names) + 1, device=state.accelerator.device, dtype=torch.float64)
    for batch in micro_batches():
        found = losses_of(batch)
        last = list(found)[-1]
        for name, loss_B in found.items():
            place = names.index(name)
            new = torch.autograd.grad(
                loss_B.sum(), parameters, retain_graph=name != last, allow_unused=True
            )
            apart[place] = [_plus(*pair) for pair in zip(apart[place], new, strict=True)]
            sums[place] += loss_B.detach().sum()
        sums[-1] += len(found[last])
    sums = state.accelerator.reduce(sums, "sum")
    apart = [summed_gradients(state.accelerator, one, parameters) for one in apart]
    examples = float(sums[-1])
    inside = {id(parameter) for parameter in model.encoder.parameters()}
    is_shared = [id(parameter) in inside for parameter in parameters]

    def gram() -> torch.Tensor:
        return gram_of(apart, is_shared).to(sums) / examples**2

    weights = balance.weights(sums[:-1] / examples, gram, state.memory).tolist()
    heads = [1.0] * len(names) if getattr(balance, "encoder_alone", False) else weights
    if not state.accelerator.is_main_process:
        return torch.zeros_like(sums[:2])
    for number, parameter in enumerate(parameters):
        factors = weights if is_shared[number] else heads
        for gradients, factor in zip(apart, factors, strict=True):
            gradient = gradients[number]
            if gradient is not None:
                parameter.grad = _plus(parameter.grad, factor * gradient)
    return torch.stack([sums[:-1].sum(), sums[-1]])


def gram_of(apart: Sequence[Gradients], counts: Sequence[bool]) -> torch.Tensor:
    """The inner products of the gradients over those parameters that count: (L, L), float64."""
    gram_LL = torch.zeros(len(apart), len(apart), dtype=torch.float64)
    for row, first in enumerate(apart):
        for column, second in enumerate(apart[: row + 1]):
            total = 0.0
            for one, other, is_counted in zip(first, second, counts, strict=True):
                if is_counted and one is not None and other is not None:
                    total += float(torch.dot(one.flatten(), other.flatten()))
            gram_LL[row, column] = gram_LL[column, row] = total
    return gram_LL


def summed_gradients(
    accelerator: Any, gradients: Gradients, parameters: Sequence[torch.Tensor]
) -> Gradients:
    """The gradients added up over the processes, as one message; a process without any takes part
    with zeros.

    What no process has a gradient of keeps none, so that the optimizer leaves it alone as with one
    process. All processes must call it.
    """
    if accelerator.num_processes == 1:
        return gradients
    filled = []
    for gradient, parameter in zip(gradients, parameters, strict=True):
        filled.append(torch.zeros_like(parameter) if gradient is None else gradient)
    known = filled[0].new_tensor([gradient is not None for gradient in gradients])
    *sums, known = summed(accelerator, [*filled, known])
    found: Gradients = []
    for total, is_known in zip(sums, known.tolist(), strict=True):
        found.append(total.clone() if is_known else None)
    return found


def _plus(total: torch.Tensor | None, more: torch.Tensor | None) -> torch.Tensor | None:
    """The sum of two gradients of which either may be missing."""
    if more is None:
        return total
    return more if total is None else total + more
