r"""Accumulation hidden in the momentum: the weights move after every k-th step only, and the
gradients of the k steps are gathered in the optimizer's moments.

    m <- b m + (1 - beta) / k g,         b = beta in the first of the k steps, 1 in the others
    v <- b v + (1 - beta2) / k g ** 2    for Adam's second moment

`m` is exactly that of one step with the mean of the k gradients, so `sgdm` with it is exact
accumulation. For `adamw` and `lamb` it is approximate: the second moment gets the mean of the
squares in place of the square of the mean. Bias corrections count the updates.

`train.accumulate` does the same for any optimizer, but keeps a gradient of the model's size while
the next micro-batch is computed; here none is kept. A step of the trainer (of schedule, clipping,
average, evaluation) stays that of the small batch. Steps at the end of the training that fill no
whole group of k do not move the weights.

Source: https://kexue.fm/archives/8634.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from nlpkit.config import Positive
from nlpkit.errors import SettingsError
from nlpkit.optim.wrapped import Place


@dataclass(frozen=True)
class Wrapper:
    """Wraps the step."""

    only_around: ClassVar[tuple[str, ...]] = ("lookahead",)

    steps: Positive = 4
    """Steps of the trainer for one of the optimizer; 1 changes nothing."""

    def check(self, place: Place) -> None:
        """Raises SettingsError for an optimizer whose update is more than its moments."""
        if place.moments is None:
            name = type(place.optimizer).__name__.lower()
            raise SettingsError(
                f"train.wrappers: hidden_accumulation: {name} needs each gradient beside its "
                "momentum: expected train.optimizer to be adamw, lamb or sgdm",
                hint="train.accumulate cuts a batch for any optimizer",
            )

    def step(self, place: Place, inner: Callable[[], None]) -> None:
        """Takes in a gradient; each `steps`-th call lets the optimizer move."""
        if self.steps == 1:
            inner()
            return
        memory = place.memory
        if not memory:
            memory["steps"] = torch.zeros((), dtype=torch.int64)
            memory["seen"] = torch.zeros(len(place.parameters), dtype=torch.bool)
        memory["steps"] += 1
        is_last = int(memory["steps"]) % self.steps == 0
        fresh = [p for p in place.parameters if p.grad is not None and not place.optimizer.state[p]]
        if fresh:
            _make_moments(place, fresh)
        self._gather(place, is_last)
        if is_last:
            inner()
            memory["seen"].zero_()

    def _gather(self, place: Place, is_last: bool) -> None:
        """Takes the gradients into the moments. Before an update it leaves in each the number with
        which the optimizer, given a k-th of the gradient, arrives at the right moment by itself."""
        assert place.moments is not None
        seen = place.memory["seen"]
        number = -1
        for group in place.optimizer.param_groups:
            moments = place.moments(group)
            for parameter in group["params"]:
                number += 1
                is_first = not seen[number]
                if parameter.grad is None and is_last and not is_first:
                    parameter.grad = torch.zeros_like(parameter)
                if parameter.grad is None:
                    continue
                seen[number] = True
                for name, (beta, power) in moments.items():
                    moment = place.optimizer.state[parameter][name]
                    if is_first:
                        moment.mul_(beta)
                    share = 1 / self.steps
                    if is_last:
                        share -= share**power  # which the optimizer itself adds
                    moment.add_(parameter.grad**power, alpha=(1 - beta) * share)
                    if is_last:
                        moment.div_(beta)
                if is_last:
                    parameter.grad.div_(self.steps)


def _make_moments(place: Place, fresh: list[torch.Tensor]) -> None:
    """Lets the optimizer make the moments of parameters that have none, all 0: by a step at a rate
    of 0 along a gradient of 0, which it does not count."""
    gradients = [parameter.grad for parameter in place.parameters]
    rates = [group["lr"] for group in place.optimizer.param_groups]
    for parameter in place.parameters:
        parameter.grad = None
    for parameter in fresh:
        parameter.grad = torch.zeros_like(parameter)
    for group in place.optimizer.param_groups:
        group["lr"] = 0.0
    place.optimizer.step()
    for parameter, gradient in zip(place.parameters, gradients, strict=True):
        parameter.grad = gradient
    for group, rate in zip(place.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for parameter in fresh:
        if "step" in place.optimizer.state[parameter]:
            place.optimizer.state[parameter]["step"].zero_()
