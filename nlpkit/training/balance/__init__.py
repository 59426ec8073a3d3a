"""How the losses of a step are weighed against each other (`train.balance`): those of the tasks
that train together, or those of one model that has several.

    u = sum_i w_i g_i        g_i: gradient of the mean loss L_i of the whole step

A way of weighing is a file here; its name is the file's. It has a class `Balance`, a frozen
dataclass whose fields are the arguments, with one method:

    def weights(self, losses_L, gram, memory) -> weights_L

and, where it needs it, `check(model)`, which raises SettingsError for a model that it cannot weigh.
`losses_L` are the mean losses L_i; `gram()` gives <g_i, g_j> over the parameters of the encoder,
which all losses share, (L, L); all are float64. What it must remember from step to step it keeps in
`memory`, which checkpoints hold, as tensors under names that begin with "balance.". Losses and
gradients are those of all micro-batches and processes, so that a step does not depend on how it was
cut. A head has the gradient of its own loss, with the same weight; where `encoder_alone` is set,
with weight 1.

    balance            w_i                        what is minimised
    sum                1                          sum_i L_i
    prior              1 / L_i^prior              the same, in units of a prediction without looking
    initial            1 / L_i at the start       the same, each in units of its own start
    scale_free         1 / L_i                    sum_i log L_i: no scale of a loss matters
    generalised_mean   d M / d L_i                M = n (1/n sum_i L_i^exponent)^(1/exponent)
    normalised         1 / ||g_i||                no scale and no shift of a loss matters
    pareto             min ||sum_i w_i g_i||      a direction in which no loss rises, if there is one

All but `sum` take a backward pass for each loss, and hold a gradient for each. A loss or a gradient
that is 0 has weight 0 where it would be divided by.

Source: https://kexue.fm/archives/8870 (losses), https://kexue.fm/archives/8896 (gradients).
"""

from __future__ import annotations

from typing import Any

import torch

from nlpkit.calls import Callables


def _callables() -> Callables:
    return Callables(__name__, __path__, "train", "balance", "Balance")


def names() -> list[str]:
    """The ways of weighing that exist: the files here."""
    return _callables().names()


def parse(call: str) -> Any:
    """The `Balance` of a `name(argument=value, ...)` string.

    Raises ValueError for what is no such call or names none, SettingsError for an unknown or wrong
    argument.
    """
    (balance,) = _callables().parse([call])
    return balance


def is_sum(balance: Any) -> bool:
    """Whether it is the plain sum, for which no loss need be taken apart."""
    return type(balance).__module__ == f"{__name__}.sum"


def reciprocal(values_L: torch.Tensor) -> torch.Tensor:
    """1 / value, and 0 of what is not above 0."""
    is_positive_L = values_L > 0
    return torch.where(is_positive_L, 1 / values_L.where(is_positive_L, 1), 0)
