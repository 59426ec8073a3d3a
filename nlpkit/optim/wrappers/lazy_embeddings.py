r"""Lazy embeddings: a row of an embedding table moves only in steps that have a gradient of it.

Else the moments of a rare token would move it on long after it was seen, and decay would shrink it
in every step. A row without gradient keeps its weights and its moments, and is not decayed. It is
for all embedding tables of the model.

Source: https://kexue.fm/archives/6869. Differs from it: the moments stay as well, as in TensorFlow
Addons' LazyAdam; the source lets them fade.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nlpkit.errors import SettingsError
from nlpkit.optim.wrapped import Place


@dataclass(frozen=True)
class Wrapper:
    """Wraps the step. It has no arguments."""

    def check(self, place: Place) -> None:
        """Raises SettingsError where there is no table."""
        if not place.tables:
            raise SettingsError("train.wrappers: lazy_embeddings: the model has no embedding table")

    def step(self, place: Place, inner: Callable[[], None]) -> None:
        """A step of the optimizer, after which the rows without gradient are put back."""
        kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for table in place.tables:
            if table.grad is None:
                continue
            idle_V = (table.grad == 0).all(1)
            kept.append((table, idle_V, table[idle_V]))
            for moment in place.optimizer.state.get(table, {}).values():
                if moment.shape == table.shape:
                    kept.append((moment, idle_V, moment[idle_V]))
        inner()
        for tensor, idle_V, rows in kept:
            tensor[idle_V] = rows
