"""Wrappers of the optimizer: what happens around each of its steps (`train.wrappers`).

A wrapper is a file here; its name is the file's. It has a class `Wrapper`, a frozen dataclass whose
fields are the arguments, with one method:

    def step(self, place, inner) -> None

`place` is what it works on (`nlpkit.optim.wrapped.Place`), `inner` the step as it was, without
arguments. A later wrapper wraps an earlier one. What it must remember from step to step it keeps in
`place.memory`, which checkpoints hold. A wrapper that suits only some models or optimizers has a
method `check(place)` that raises SettingsError. One with an attribute `only_around` must be the
last, after none but those that it names.

| wrapper | what it does | memory beside the weights | changes nothing at |
|---|---|---|---|
| `lookahead` | every k steps goes back a part of the way | 1 | `alpha=1` |
| `lazy_embeddings` | leaves rows of tables alone that a step does not use | 0 | |
| `hidden_accumulation` | gathers the gradients of several steps in the momentum | 0 | `steps=1` |
| `exponentiated_gradient` | each weight's rate grows or shrinks by itself | 2 | `gamma=0` |
| `normalized_gradients` | gives each tensor's gradient the same norm | 0 | `power=0` |

Memory is counted in copies of the model. All work with every optimizer, with parameter groups,
schedule and average (`train.average`, which sees the weights after the outermost wrapper), but
`hidden_accumulation`, which needs one that uses the gradient for its moments only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nlpkit.calls import Callables


def _callables() -> Callables:
    return Callables(__name__, __path__, "train", "wrappers", "Wrapper")


def names() -> list[str]:
    """The wrappers that exist: the files here."""
    return _callables().names()


def parse(calls: Iterable[str]) -> list[Any]:
    """The wrappers of `name(argument=value, ...)` strings, in order.

    Raises ValueError for what is no such call, names no wrapper, or does not go with the others;
    SettingsError for an unknown or wrong argument.
    """
    found = _callables().parse(calls)
    for number, wrapper in enumerate(found):
        allowed = getattr(wrapper, "only_around", None)
        if allowed is None:
            continue
        before = [name_of(one) for one in found[:number]]
        after = [name_of(one) for one in found[number + 1 :]]
        if after or not set(before) <= set(allowed):
            raise ValueError(
                f"wrappers: {name_of(wrapper)}: expected to be the last, after none but "
                f"{', '.join(allowed)}, got {', '.join(map(name_of, found))}"
            )
    return found


def name_of(wrapper: Any) -> str:
    """The name of a wrapper: that of its file."""
    return type(wrapper).__module__.rpartition(".")[2]
