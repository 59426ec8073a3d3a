r"""Parameter groups: a learning rate for every layer, patterns for the rest, no weight decay on
vectors, nor on what a module names `undecayed`.

    rate(parameter) = multiplier * learning_rate * layer_decay ** layers_above
    layers_above    = depth of the top layer - depth of the parameter

where the multiplier is that of the first pattern (a regular expression searched in the parameter's
name) that fits. Everything outside the encoder (the head) counts as one layer above it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from nlpkit.errors import SettingsError


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate and a weight decay."""

    learning_rate: float
    weight_decay: float
    hidden: bool
    """Whether they are the weights of the encoder's linear layers, which Muon is for."""
    names: list[str]
    parameters: list[nn.Parameter]

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.parameters)

    def settings(self) -> dict[str, Any]:
        """The group as torch's optimizers take it."""
        return {
            "params": self.parameters,
            "lr": self.learning_rate,
            "weight_decay": self.weight_decay,
        }


def parse_rates(rates: Sequence[str]) -> list[tuple[re.Pattern[str], float]]:
    """`regex=multiplier` strings as pairs. Raises ValueError where one is not of this form."""
    pairs = []
    for rate in rates:
        pattern, _, factor = rate.rpartition("=")
        try:
            pair = (re.compile(pattern), float(factor))
        except (ValueError, re.error) as error:
            raise ValueError(f'rates: "{rate}": expected regex=multiplier: {error}') from None
        if not pattern:
            raise ValueError(f'rates: "{rate}": expected regex=multiplier')
        if not 0 <= pair[1] < float("inf"):
            raise ValueError(f'rates: "{rate}": expected a multiplier of at least 0, got {factor}')
        pairs.append(pair)
    return pairs


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    layer_decay: float,
    rates: Sequence[str],
) -> list[Group]:
    """The groups of a model with an attribute `encoder` (see the module docstring), highest rate
    first.

    Raises SettingsError where a pattern of `rates` fits no parameter, or only ones that an earlier
    pattern took.
    """
    patterns = parse_rates(rates)
    used = set()
    encoder: Any = model.encoder
    hidden = {id(module.weight) for module in encoder.modules() if isinstance(module, nn.Linear)}
    undecayed = set()
    for module in model.modules():
        undecayed |= {id(parameter) for parameter in getattr(module, "undecayed", ())}
    groups: dict[tuple[float, float, bool], Group] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        inside = name.removeprefix("encoder.")
        depth = encoder.depth_of(inside) if inside != name else encoder.depth + 1
        rate = learning_rate * layer_decay ** (encoder.depth + 1 - depth)
        for index, (pattern, factor) in enumerate(patterns):
            if pattern.search(name):
                used.add(index)
                rate *= factor
                break
        decays = parameter.dim() > 1 and id(parameter) not in undecayed
        key = (rate, weight_decay if decays else 0.0, id(parameter) in hidden)
        group = groups.setdefault(key, Group(*key, [], []))
        group.names.append(name)
        group.parameters.append(parameter)
    for index, (pattern, _) in enumerate(patterns):
        if index not in used:
            raise SettingsError(
                f'train.rates: no parameter is left for the pattern "{pattern.pattern}"'
            )
    return [groups[key] for key in sorted(groups, reverse=True)]
