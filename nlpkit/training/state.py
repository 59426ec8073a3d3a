"""The state of a training: all that a checkpoint holds, from which it goes on bit for bit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from nlpkit import optim
from nlpkit.optim.ema import WeightAverage
from nlpkit.optim.groups import parameter_groups
from nlpkit.optim.schedule import parse_schedule
from nlpkit.optim.wrapped import Wrapped
from nlpkit.training.settings import TrainConfig


@dataclass
class TrainState:
    """All that a checkpoint holds: weights, optimiser, wrappers, average, position, best value and
    the generators' state.

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
    memory: dict[str, torch.Tensor] = field(default_factory=dict)
    """What techniques remember from step to step, by names of their own."""
    unlabelled: Callable[[int], Iterable[Any]] | None = None
    """(step, counted from 0) -> this process's micro-batches of the step's lines without gold; None
    where there are none."""
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
        self.optimizer = optim.new_optimizer(
            config.optimizer, self.groups, self.accelerator.mixed_precision == "bf16"
        )
        self.wrapped = Wrapped(
            self.optimizer, optim.moments(config.optimizer), self.model, config.wrappers
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
        """Tensors of any shape by name, and plain values, from which `restore` continues bit for
        bit. All processes must call it."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{index}.{name}": torch.as_tensor(value)
                for name, value in values.items()
            }
        if self.average:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.average.items()}
        tensors |= {f"wrappers.{name}": tensor for name, tensor in self.wrapped.state().items()}
        tensors |= {f"memory.{name}": tensor for name, tensor in self.memory.items()}
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
        """Continues from what `state` gave: the same names and shapes."""
        parts: dict[str, dict[str, torch.Tensor]] = {
            part: {} for part in ("model", "optimizer", "wrappers", "average", "memory", "random")
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
        device = self.accelerator.device
        self.wrapped.restore(parts["wrappers"], device)
        self.memory = {name: tensor.to(device) for name, tensor in parts["memory"].items()}
        self.step = plain["step"]
        self.bad_evaluations = plain["bad_evaluations"]
        self.history = plain["history"]
        self.best = float("-inf") if plain["best"] is None else plain["best"]
        _set_random_states(self.accelerator, parts["random"])


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
