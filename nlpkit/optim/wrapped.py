"""An optimizer with wrappers around its step, and what they remember."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from nlpkit.optim.wrappers import parse

Moments = Callable[[dict[str, Any]], dict[str, tuple[float, int]]]


@dataclass
class Place:
    """What a wrapper works on.

    `parameters` are those of all groups, in order; `tables` those of them that are the weights
    (V, H) of embeddings; `moments` is the function of that name of the optimizer's file, None where
    it has none. `memory` is the wrapper's own: tensors by names of its own.
    """

    optimizer: torch.optim.Optimizer
    parameters: list[torch.Tensor]
    tables: list[torch.Tensor]
    moments: Moments | None
    memory: dict[str, torch.Tensor] = field(default_factory=dict)


class Wrapped:
    """`step()` is that of the optimizer, within all wrappers.

    Args:
        optimizer: the optimizer.
        moments: see `Place`.
        model: the model whose parameters it moves.
        calls: `name(argument=value)` of the wrappers. Raises ValueError or SettingsError for one
            that does not exist, or that does not suit the model or the optimizer.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        moments: Moments | None,
        model: nn.Module,
        calls: Sequence[str],
    ):
        parameters: list[torch.Tensor] = []
        for group in optimizer.param_groups:
            parameters += group["params"]
        rows = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        tables = [parameter for parameter in parameters if id(parameter) in rows]
        self.places: list[Place] = []
        self.step: Callable[[], Any] = optimizer.step
        for wrapper in parse(calls):
            place = Place(optimizer, parameters, tables, moments)
            if hasattr(wrapper, "check"):
                wrapper.check(place)
            self.places.append(place)
            self.step = torch.no_grad()(partial(wrapper.step, place, self.step))

    def state(self) -> dict[str, torch.Tensor]:
        """What the wrappers remember, by names."""
        found = {}
        for number, place in enumerate(self.places):
            for name, tensor in place.memory.items():
                found[f"{number}.{name}"] = tensor
        return found

    def restore(self, tensors: dict[str, torch.Tensor], device: torch.device) -> None:
        """Goes on with what `state` gave."""
        for place in self.places:
            place.memory.clear()
        for name, tensor in tensors.items():
            number, _, own = name.partition(".")
            self.places[int(number)].memory[own] = tensor.to(device)
