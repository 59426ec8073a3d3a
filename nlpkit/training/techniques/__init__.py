"""Techniques of training: each wraps one of the four parts of a step (`nlpkit.training.step`).

A technique is a file here; its name is the file's. It has a class `Technique`, a frozen dataclass
whose fields are the arguments, with one method named after the part that it wraps:

    def objective(self, step, inner, batch) -> loss_B
    def backward(self, step, inner, micro_batches) -> sums_2
    def combine(self, step, inner, sums_2) -> Total
    def update(self, step, inner) -> None

`step` is the `TrainingStep`, `inner` the part as it was, with the arguments after it. Of several
techniques on one part a later one wraps an earlier one. What a technique must remember from step to
step it keeps in `step.state.memory`, which checkpoints hold. At strength 0 it calls `inner` and
does nothing else, so that it changes no bit.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable
from typing import Any

from nlpkit.config import build
from nlpkit.errors import did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PARTS = ("objective", "backward", "combine", "update")
_CALL = re.compile(r"(?P<name>\w+)(\((?P<arguments>.*)\))?", re.DOTALL)


def names() -> list[str]:
    """The techniques that exist: the files here."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def parse(calls: Iterable[str]) -> list[Any]:
    """The techniques of `name(argument=value, ...)` strings, in order.

    Raises ValueError for what is no such call or names no technique, SettingsError for an unknown
    or wrong argument.
    """
    return [_parse_one(call) for call in calls]


def _parse_one(call: str) -> Any:
    match = _CALL.fullmatch(call.strip())
    if match is None:
        raise ValueError(f'techniques: expected name(argument=value), got "{call}"')
    name = match["name"]
    if name not in names():
        known = ", ".join(names())
        near = did_you_mean(name, names())
        raise ValueError(f'techniques: expected some of {known}, got "{name}"{near}')
    try:
        arguments = tomllib.loads(f"value = {{{match['arguments'] or ''}}}")["value"]
    except (ValueError, RecursionError):
        raise ValueError(f'techniques: expected {name}(argument=value), got "{call}"') from None
    technique = importlib.import_module(f"{__name__}.{name}").Technique
    return build(technique, arguments, f"train.techniques: {name}")


def part_of(technique: Any) -> str:
    """The name of the part that a technique wraps."""
    (part,) = [part for part in PARTS if hasattr(technique, part)]
    return part
