"""Parts of training: parameter groups, schedules, averages of the weights, the optimizers, and what
wraps their steps (`nlpkit.optim.wrappers`).

| optimizer | what it is | moments |
|---|---|---|
| `adamw` | Adam with decoupled weight decay | 2 |
| `lamb` | Adam with an update as long as its matrix (large batches) | 2 |
| `lion` | the sign of a momentum | 1 |
| `muon` | orthogonal updates for the linear layers of the encoder, AdamW for the rest | 1 and 2 |
| `sgdm` | gradient descent with momentum | 1 |

An optimizer is a file here, has the name of its file, and defines

    new_optimizer(groups, bf16)    a `torch.optim.Optimizer`
    LEARNING_RATES                 a good top rate for each way in which an encoder learns (`WAYS`)
    SUITS                          the ways for which it is the default

and may define `moments(group)`: the tensors of its state in which the gradient is all that counts,
name -> (beta, power), where each step does `moment <- beta moment + (1 - beta) gradient ** power`.
An optimizer with such a function uses the gradient for nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

from nlpkit.errors import SettingsError, did_you_mean
from nlpkit.optim.groups import Group

WAYS = ("convolutions", "random", "pretrained", "elsewhere")
"""What an encoder says in `learns_as`: convolutions and an LSTM, which start from random weights; a
transformer with random weights; one that nlpkit pretrained; any other checkpoint."""


def names() -> list[str]:
    """The optimizers that exist, sorted."""
    files = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(name for name in files if hasattr(_module(name), "LEARNING_RATES"))


def _module(name: str) -> Any:
    return importlib.import_module(f"nlpkit.optim.{name}")


def check_name(name: str) -> None:
    """Raises ValueError for an optimizer that does not exist."""
    if name not in names():
        known = ", ".join(names())
        raise ValueError(
            f'optimizer: expected one of {known}, got "{name}"{did_you_mean(name, names())}'
        )


def default_for(way: str) -> str:
    """The name of the optimizer for an encoder that learns in this way."""
    return next(name for name in names() if way in _module(name).SUITS)


def learning_rate(name: str, way: str) -> float:
    """A good top rate of an optimizer for an encoder that learns in this way. Raises SettingsError
    where the optimizer knows none."""
    rates = _module(name).LEARNING_RATES
    if way not in rates:
        raise SettingsError(f"train.learning_rate: {name} has no default for this encoder")
    return rates[way]


def new_optimizer(name: str, groups: Sequence[Group], bf16: bool) -> Any:
    """The optimizer of some groups; `bf16` lets it compute in bfloat16 where that is enough."""
    return _module(name).new_optimizer(groups, bf16)


def moments(name: str) -> Callable[[dict[str, Any]], dict[str, tuple[float, int]]] | None:
    """The function `moments` of an optimizer; None where it has none."""
    return getattr(_module(name), "moments", None)
