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

from collections.abc import Iterable
from typing import Any

from nlpkit.calls import Callables

PARTS = ("objective", "backward", "combine", "update")


def _callables() -> Callables:
    return Callables(__name__, __path__, "train", "techniques", "Technique")


def names() -> list[str]:
    """The techniques that exist: the files here."""
    return _callables().names()


def parse(calls: Iterable[str]) -> list[Any]:
    """The techniques of `name(argument=value, ...)` strings, in order.

    Raises ValueError for what is no such call or names no technique, SettingsError for an unknown
    or wrong argument.
    """
    return _callables().parse(calls)


def part_of(technique: Any) -> str:
    """The name of the part that a technique wraps."""
    (part,) = [part for part in PARTS if hasattr(technique, part)]
    return part
