r"""Conditions of generation: labels, one or of several attributes, or a vector; as given and as the
norms see them.

    {"label": "好评"}     {"label": {"form": "五言绝句", "theme": "送别"}}     {"vector": [0.1, -2.0, 0.3]}

    c = sum over the labels given of Embedding(label)
    c = swish(W (vector - mean) / deviation)

Labels are those of the training data; an attribute that a record leaves out adds nothing. Mean and
deviation are those of the training vectors, number by number; a number that is the same in all of
them is only shifted.

Source: https://kexue.fm/archives/7124, and example `task_image_caption` of
github.com/bojone/bert4keras.
Differs from it: vectors are standardised, so that any source of them will do.
Legend: B batch, A labels of a row, D numbers of a vector, C numbers of the condition.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nlpkit.errors import DataError, RecordError, did_you_mean, shown
from nlpkit.formats.labels import read_label, unknown_label
from nlpkit.formats.typed import read_json
from nlpkit.jsonl import write_atomic

FILE = "conditions.json"
SPREAD = 0.1
"""Standard deviation of new embeddings. The norms learn about 10 times as fast as other weights
with it."""


@dataclass(frozen=True)
class Condition:
    """Labels by attribute (a plain label is of the attribute `label`), or a vector, or neither."""

    labels: dict[str, str] = field(default_factory=dict)
    vector: tuple[float, ...] = ()


def read_condition(record: dict[str, Any]) -> Condition:
    """The fields `label` and `vector` of a record. Raises RecordError."""
    given, vector = record.get("label"), record.get("vector")
    if given is not None and vector is not None:
        raise RecordError('expected "label" or "vector", got both')
    if vector is not None:
        return Condition(vector=_vector(vector))
    labels = {"label": given} if not isinstance(given, dict) else given
    read = {
        name: read_label(value, "label" if labels is not given else f"label.{name}")
        for name, value in labels.items()
    }
    return Condition({name: label for name, label in read.items() if label is not None})


def _vector(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or not value:
        raise RecordError(f'field "vector": expected a list of numbers, got {shown(value)}')
    for index, number in enumerate(value):
        if (
            isinstance(number, bool)
            or not isinstance(number, (int, float))
            or not math.isfinite(number)
        ):
            raise RecordError(
                f'field "vector": expected finite numbers, got {shown(number)} at {index}'
            )
    return tuple(map(float, value))


@dataclass(frozen=True)
class ConditionSpace:
    """The conditions of a training: the labels of every attribute, or the mean and deviation of the
    vectors."""

    attributes: dict[str, list[str]] = field(default_factory=dict)
    mean: list[float] = field(default_factory=list)
    deviation: list[float] = field(default_factory=list)

    @classmethod
    def find(
        cls, conditions: Iterable[tuple[str, Condition]], required: bool = True
    ) -> ConditionSpace:
        """That of (place, condition) pairs. Raises DataError where they do not go together or say
        nothing."""
        attributes: dict[str, set[str]] = defaultdict(set)
        vectors: list[tuple[float, ...]] = []
        for where, condition in conditions:
            for name, label in condition.labels.items():
                attributes[name].add(label)
            if condition.vector:
                vectors.append(condition.vector)
            if vectors and (attributes or len(condition.vector) != len(vectors[0])):
                expected = f"expected a vector of {len(vectors[0])} numbers"
                raise DataError(f"{where}: {expected} as on the lines before")
            if required and condition == Condition():
                raise DataError(f'{where}: no condition: expected "label" or "vector"')
        if not vectors:
            return cls({name: sorted(labels) for name, labels in sorted(attributes.items())})
        vectors_ND = np.array(vectors)
        deviation_D = vectors_ND.std(0)
        deviation_D[deviation_D < 1e-9 * (1 + np.abs(vectors_ND).max(0))] = 1.0
        return cls(mean=vectors_ND.mean(0).tolist(), deviation=deviation_D.tolist())

    def write(self, folder: Path) -> None:
        """Writes labels, or mean and deviation, to `conditions.json`; `read` reads it."""
        with write_atomic(folder / FILE) as stream:
            stream.write(json.dumps(asdict(self), ensure_ascii=False).encode() + b"\n")

    @classmethod
    def read(cls, folder: Path) -> ConditionSpace:
        """What `write` wrote. Raises SettingsError."""
        return read_json(cls, folder / FILE)

    def check(self, condition: Condition, required: bool = True) -> None:
        """Raises RecordError where the condition is none of this space, or where there is none."""
        if condition.vector and not self.mean:
            raise RecordError('field "vector": expected "label", which is what training had')
        if len(condition.vector) != len(self.mean) and (
            condition.vector or (required and self.mean)
        ):
            raise RecordError(
                f'field "vector": expected {len(self.mean)} numbers, got {len(condition.vector)}'
            )
        for name, label in condition.labels.items():
            if name not in self.attributes:
                known = ", ".join(self.attributes) or "no labels"
                near = did_you_mean(name, self.attributes)
                raise RecordError(f'field "label": expected {known}, got "{name}"{near}')
            if label not in self.attributes[name]:
                raise unknown_label(
                    label, self.attributes[name], "label" if name == "label" else f"label.{name}"
                )
        if required and condition == Condition():
            raise RecordError('missing field "label"')

    def wrong(self, condition: Condition) -> Condition:
        """Another condition: of every attribute the next label, in their order; a vector mirrored
        at the mean."""
        if condition.vector:
            mirrored = zip(self.mean, condition.vector, strict=True)
            return replace(condition, vector=tuple(2 * mean - number for mean, number in mirrored))
        known = {name: self.attributes[name] for name in condition.labels}
        return Condition(
            {
                n: known[n][(known[n].index(v) + 1) % len(known[n])]
                for n, v in condition.labels.items()
            }
        )

    def tensor(self, conditions: Sequence[Condition]) -> torch.Tensor:
        """float32 (B, D), or int64 (B, A) with the labels' numbers, counted from 1 over all
        attributes; 0 for none."""
        if self.mean:
            return torch.tensor([condition.vector for condition in conditions], dtype=torch.float32)
        numbers = self._numbers
        return torch.tensor(
            [[numbers.get((n, c.labels.get(n)), 0) for n in self.attributes] for c in conditions],
            dtype=torch.int64,
        )

    @property
    def _numbers(self) -> dict[Any, int]:
        pairs = [(name, label) for name, labels in self.attributes.items() for label in labels]
        return {pair: number for number, pair in enumerate(pairs, 1)}


class ConditionVectors(nn.Module):
    """The condition that the norms see, of `size` numbers."""

    def __init__(self, space: ConditionSpace, size: int):
        super().__init__()
        self.labels: nn.Embedding | None = None
        self.mean_D: torch.Tensor
        self.deviation_D: torch.Tensor
        if space.mean:
            self.register_buffer("mean_D", torch.tensor(space.mean))
            self.register_buffer("deviation_D", torch.tensor(space.deviation))
            self.project = nn.Linear(len(space.mean), size, bias=False)
        else:
            self.labels = nn.Embedding(
                1 + sum(map(len, space.attributes.values())), size, padding_idx=0
            )
            nn.init.normal_(self.labels.weight[1:], std=SPREAD)

    def forward(self, condition: torch.Tensor) -> torch.Tensor:
        """condition_BC; `condition` is what `ConditionSpace.tensor` gives: float32 (B, D) or
        int64 (B, A)."""
        if self.labels is not None:
            return self.labels(condition).sum(1)
        return nn.functional.silu(self.project((condition - self.mean_D) / self.deviation_D))
