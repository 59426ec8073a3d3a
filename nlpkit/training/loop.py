"""The trainer: a generator of events that knows no task, and the state that a checkpoint holds.

    for event in train(state, batches, evaluate):      # the caller saves, draws, logs, or breaks
        ...

Accumulation is exact for any split of a batch, over micro-batches and over processes: every
backward pass adds the gradient of a *sum* of losses, and the sum is divided once by the number of
examples of the whole step. A step therefore does not depend on how its batch was cut.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from nlpkit.errors import NlpkitError
from nlpkit.optim import new_optimizer
from nlpkit.optim.ema import WeightAverage
from nlpkit.optim.groups import parameter_groups
from nlpkit.optim.schedule import multiplier, parse_schedule
from nlpkit.training.settings import TrainConfig


@dataclass(frozen=True)
class Step:
    """An optimiser step is done. `loss` is the mean over the examples of the step."""

    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    examples: int
    interrupted: bool


@dataclass(frozen=True)
class Evaluation:
    """The model was evaluated after `step`."""

    step: int
    epoch: float
    metrics: dict[str, Any]
    value: float
    is_best: bool


@dataclass
class TrainState:
    """All that a checkpoint holds: weights, optimiser, average, position, best value and the
    generators' state.

    Args:
        model: model(batch) -> loss_B, with an attribute `encoder`.
        config: settings, `completed`.
        steps: optimiser steps of the whole run.
        accelerator: an `accelerate.Accelerator`: the device, the processes and their sums.
    """

    model: nn.Module
    config: TrainConfig
    steps: int
    accelerator: Any
    step: int = 0
    best: float = float("-inf")
    bad_evaluations: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    # set by a signal handler of any process; every process hears of it with the next step
    interrupted: bool = False

    def __post_init__(self) -> None:
        config = self.config
        assert config.optimizer is not None
        assert config.learning_rate is not None
        self.model.to(self.accelerator.device)
        self.points = parse_schedule(config.schedule)
        self.groups = parameter_groups(
            self.model, config.learning_rate, config.weight_decay, config.layer_decay, config.rates
        )
        self.optimizer = new_optimizer(
            config.optimizer, self.groups, self.accelerator.mixed_precision == "bf16"
        )
        self.average = WeightAverage(self.model, config.average) if config.average else None

    def evaluation_is_due(self, every: int) -> bool:
        """Whether the model as it is now is to be evaluated and has not been: also right after a
        resume."""
        at_mark = self.step > 0 and (self.step % every == 0 or self.step == self.steps)
        return at_mark and (not self.history or self.history[-1]["step"] != self.step)

    @contextlib.contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Within the block the model has the weights that count (the average, if there is one) and
        is in eval mode."""
        self.model.eval()
        with self.average.applied() if self.average else contextlib.nullcontext():
            yield
        self.model.train()

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors by name, and plain values, from which `restore` continues bit for bit. All
        processes must call it."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{index}.{name}": torch.as_tensor(value)
                for name, value in values.items()
            }
        if self.average:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.average.items()}
        tensors |= {
            f"random.{name}": state for name, state in _random_states(self.accelerator).items()
        }
        plain = {
            name: getattr(self, name) for name in ("step", "steps", "bad_evaluations", "history")
        }
        plain["best"] = self.best if self.history else None
        plain["average_steps"] = self.average.steps if self.average else 0
        return tensors, plain

    def restore(self, tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> None:
        """Continues from what `state` gave."""
        parts: dict[str, dict[str, torch.Tensor]] = {
            "model": {},
            "optimizer": {},
            "average": {},
            "random": {},
        }
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.model.load_state_dict(parts["model"])
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        if self.average:
            self.average.steps = plain["average_steps"]
            for name, tensor in parts["average"].items():
                self.average.average[name].copy_(tensor)
        self.step, self.bad_evaluations, self.history = (
            plain["step"],
            plain["bad_evaluations"],
            plain["history"],
        )
        self.best = float("-inf") if plain["best"] is None else plain["best"]
        _set_random_states(self.accelerator, parts["random"])


def train(
    state: TrainState,
    micro_batches: Callable[[int], Iterable[Any]],
    evaluate: Callable[[], dict[str, Any]],
    monitor: str,
    steps_per_epoch: int,
) -> Iterator[Step | Evaluation]:
    """Trains from `state.step` to `state.steps`, yielding after every step and every evaluation.

    `micro_batches(step)` gives this process's pieces of a step's batch; `evaluate()` is called
    under `state.evaluated_weights()` and its `monitor` picks the best (higher is better). All
    processes must iterate alike.
    """
    every = max(1, round(state.config.evaluate_every * steps_per_epoch))
    patience = state.config.patience or float("inf")
    state.model.train()
    while state.bad_evaluations < patience:
        if state.evaluation_is_due(every):
            yield _evaluate(state, evaluate, monitor, steps_per_epoch)
        elif state.step < state.steps:
            yield _step(state, micro_batches(state.step), steps_per_epoch)
        else:
            return


def _evaluate(
    state: TrainState, evaluate: Callable[[], dict[str, Any]], monitor: str, steps_per_epoch: int
) -> Evaluation:
    """Evaluates and notes the result in the state."""
    with state.evaluated_weights():
        metrics = evaluate()
    value, epoch = float(metrics[monitor]), state.step / steps_per_epoch
    is_best = value > state.best
    state.best = max(value, state.best)
    state.bad_evaluations = 0 if is_best else state.bad_evaluations + 1
    state.history.append({"step": state.step, "epoch": round(epoch, 3), **metrics})
    return Evaluation(state.step, epoch, metrics, value, is_best)


def _step(state: TrainState, pieces: Iterable[Any], steps_per_epoch: int) -> Step:
    """One optimiser step: gradients of summed losses, added up over pieces and processes, divided
    once."""
    config, accelerator = state.config, state.accelerator
    totals = torch.zeros(
        3, device=accelerator.device, dtype=torch.float64
    )  # loss, examples, interrupts
    totals[2] = float(state.interrupted)
    for batch in pieces:
        with accelerator.autocast():
            loss_B = state.model(batch.to(accelerator.device))
        loss_B.sum().backward()
        totals[0] += loss_B.detach().sum()
        totals[1] += len(loss_B)
    totals = accelerator.reduce(totals, "sum")
    parameters = [p for group in state.groups for p in group.parameters]
    _reduce_gradients(accelerator, parameters)
    loss, examples, interrupts = totals.tolist()
    if not torch.isfinite(totals).all():
        raise NlpkitError(
            f"the loss is {loss} at step {state.step + 1}", hint="try a smaller train.learning_rate"
        )
    gradients = [p.grad for p in parameters if p.grad is not None]
    torch._foreach_div_(gradients, examples)
    norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm or float("inf"))
    if not torch.isfinite(norm):
        raise NlpkitError(
            f"the gradient is {norm} at step {state.step + 1}",
            hint="try a smaller train.learning_rate",
        )
    state.step += 1
    factor = multiplier(state.points, state.step, state.steps)
    for group, settings in zip(state.groups, state.optimizer.param_groups, strict=True):
        settings["lr"] = group.learning_rate * factor
    state.optimizer.step()
    state.optimizer.zero_grad()
    if state.average:
        state.average.update()
    return Step(
        step=state.step,
        steps=state.steps,
        epoch=state.step / steps_per_epoch,
        loss=loss / examples,
        learning_rate=max(settings["lr"] for settings in state.optimizer.param_groups),
        examples=int(examples),
        interrupted=interrupts > 0,
    )


def _reduce_gradients(accelerator: Any, parameters: list[nn.Parameter]) -> None:
    """Adds the gradients up over the processes, as one message; a process without any piece takes
    part with zeros.

    What no process has a gradient of keeps none, so that the optimizer leaves it alone as with one
    process.
    """
    if accelerator.num_processes == 1:
        return
    flat = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
    )
    known = flat.new_tensor([p.grad is not None for p in parameters])
    sums, known = accelerator.reduce(torch.cat([flat, known]), "sum").split([len(flat), len(known)])
    gradients = sums.split([p.numel() for p in parameters])
    for parameter, gradient, is_known in zip(parameters, gradients, known.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter).clone() if is_known else None


def _random_states(accelerator: Any) -> dict[str, torch.Tensor]:
    """The states of the generators, a row for each process."""
    states = {"cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(accelerator.device)
    return {
        name: accelerator.gather(state[None].to(accelerator.device)).cpu()
        for name, state in states.items()
    }


def _set_random_states(accelerator: Any, states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"][accelerator.process_index].clone())
    if "cuda" in states:
        torch.cuda.set_rng_state(
            states["cuda"][accelerator.process_index].clone(), accelerator.device
        )
