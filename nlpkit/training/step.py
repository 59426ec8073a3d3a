"""One optimiser step, as four parts, each of which a technique may wrap.

    objective(batch) -> loss_B           the losses of a micro-batch, one for each example
    backward(micro_batches) -> sums_2    adds the gradient of the *sum* of this process's losses to
                                         `.grad`; gives (sum of losses, examples)
    combine(sums_2) -> Total             adds both up over the processes and divides once by the
                                         number of examples: `.grad` is now the gradient of the
                                         mean loss of the step
    update()                             clips the gradient, lets the optimizer (within its wrappers)
                                         and the average move, clears `.grad`

Accumulation is exact for any split of a batch, over micro-batches and over processes, since nothing
is divided before all is added up: a step does not depend on how its batch was cut. Where a loss
couples the examples, `backward` is that of `nlpkit.training.gradient_cache`, and there is no
`objective`. Where losses are weighed against each other, it is that of `nlpkit.training.apart`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from nlpkit.errors import NlpkitError, SettingsError
from nlpkit.optim.schedule import multiplier
from nlpkit.task import CoupledModel
from nlpkit.training import balance, techniques
from nlpkit.training.apart import balanced_backward, refuse_single, summed_gradients
from nlpkit.training.gradient_cache import cached_backward
from nlpkit.training.multitask.model import MultiModel, TaskBatch
from nlpkit.training.state import TrainState

MicroBatches = Callable[[], Iterable[Any]]
"""Makes this process's micro-batches of a step; called again it makes the same ones."""


@dataclass(frozen=True)
class Total:
    """A step over all processes: the mean loss of its examples, their number, and whether a process
    was asked to stop."""

    loss: float
    examples: int
    interrupted: bool


class TrainingStep:
    """The step of a training: call it with the micro-batches. All processes must call it alike.

    The parts are attributes, so that techniques can wrap them: those of `train.techniques`, in
    their order.
    """

    def __init__(self, state: TrainState):
        self.state = state
        self.parameters: list[nn.Parameter] = []
        for group in state.groups:
            self.parameters += group.parameters
        self.objective: Callable[[Any], torch.Tensor] = self._objective
        self.backward: Callable[[MicroBatches], torch.Tensor] = self.plain_backward
        if isinstance(state.model, CoupledModel):
            self.backward = partial(cached_backward, state.model, state.accelerator)
        weighing = balance.parse(state.config.balance)
        if not balance.is_sum(weighing):
            refuse_single(state.model)
            if hasattr(weighing, "check"):
                weighing.check(state.model)
            self.backward = partial(
                balanced_backward, state, weighing, self._losses, self.parameters
            )
        self.combine: Callable[[torch.Tensor], Total] = self._combine
        self.update: Callable[[], None] = self._update
        for technique in techniques.parse(state.config.techniques):
            for part in techniques.parts_of(technique):
                self._check(technique, part)
                setattr(self, part, partial(getattr(technique, part), self, getattr(self, part)))
        # a module with this method counts the examples that it was trained on
        self.counting: list[Any] = [
            module for module in state.model.modules() if hasattr(module, "count_examples")
        ]

    def __call__(self, micro_batches: MicroBatches) -> Total:
        """One optimiser step. Raises NlpkitError where the loss or the gradient is not finite."""
        sums_2 = self.backward(micro_batches)
        total = self.combine(sums_2)
        self.update()
        for module in self.counting:
            module.count_examples(total.examples)
        return total

    def gradients(self) -> list[torch.Tensor]:
        """Those of the parameters that have one, in their order and shapes."""
        return [p.grad for p in self.parameters if p.grad is not None]

    def all_micro_batches(self, micro_batches: MicroBatches) -> Iterator[Any]:
        """The micro-batches of a step, and those of its lines without gold."""
        yield from micro_batches()
        if self.state.unlabelled is not None:
            yield from self.state.unlabelled(self.state.step)

    def _check(self, technique: Any, part: str) -> None:
        """Raises SettingsError where a technique does not go with the model."""
        needs_objective = part == "objective" or getattr(technique, "needs_objective", False)
        if needs_objective and isinstance(self.state.model, CoupledModel):
            raise SettingsError(
                "train.techniques: this task's loss is of a whole step: expected none that "
                "changes or asks for the loss of a micro-batch"
            )
        is_apart = not balance.is_sum(balance.parse(self.state.config.balance))
        if part == "objective" and is_apart and not isinstance(self.state.model, MultiModel):
            raise SettingsError(
                "train.techniques: what changes the sum of a model's losses cannot change each of "
                "them: expected train.balance=sum"
            )
        if hasattr(technique, "check"):
            technique.check(self.state.model)

    def _objective(self, batch: Any) -> torch.Tensor:
        with self.state.accelerator.autocast():
            return self.state.model(batch.to(self.state.accelerator.device))

    def _losses(self, batch: Any) -> dict[str, torch.Tensor]:
        """The losses of a micro-batch apart, by name: (B,) each."""
        if isinstance(batch, TaskBatch):
            return {batch.task: self.objective(batch)}
        model: Any = self.state.model
        with self.state.accelerator.autocast():
            return model.losses(batch.to(self.state.accelerator.device))

    def plain_backward(self, micro_batches: MicroBatches) -> torch.Tensor:
        """The part `backward` before anything wraps it, of a loss that does not couple examples."""
        sums_2 = torch.zeros(2, device=self.state.accelerator.device, dtype=torch.float64)
        for batch in micro_batches():
            loss_B = self.objective(batch)
            loss_B.sum().backward()
            sums_2[0] += loss_B.detach().sum()
            sums_2[1] += len(loss_B)
        return sums_2

    def _combine(self, sums_2: torch.Tensor) -> Total:
        state = self.state
        asked = sums_2.new_tensor([float(state.interrupted)])
        sums_3 = state.accelerator.reduce(torch.cat([sums_2, asked]), "sum")
        reduce_gradients(state.accelerator, self.parameters)
        loss, examples, interrupts = sums_3.tolist()
        if not torch.isfinite(sums_3).all():
            raise NlpkitError(
                f"the loss is {loss} at step {state.step + 1}",
                hint="try a smaller train.learning_rate",
            )
        torch._foreach_div_(self.gradients(), examples)
        return Total(loss / examples, int(examples), interrupts > 0)

    def _update(self) -> None:
        state = self.state
        norm = nn.utils.clip_grad_norm_(self.parameters, state.config.clip_norm or float("inf"))
        if not torch.isfinite(norm):
            raise NlpkitError(
                f"the gradient is {norm} at step {state.step + 1}",
                hint="try a smaller train.learning_rate",
            )
        state.step += 1
        factor = multiplier(state.points, state.step, state.steps)
        for group, settings in zip(state.groups, state.optimizer.param_groups, strict=True):
            settings["lr"] = group.learning_rate * factor
        state.wrapped.step()
        state.optimizer.zero_grad()
        if state.average:
            state.average.update()


def reduce_gradients(accelerator: Any, parameters: list[nn.Parameter]) -> None:
    """Adds the gradients up over the processes, see `summed_gradients`."""
    if accelerator.num_processes == 1:
        return
    gradients = summed_gradients(accelerator, [p.grad for p in parameters], parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
