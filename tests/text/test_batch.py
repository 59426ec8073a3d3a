"""Batches go to a device whole: tensors, batches in batches, tuples of them; nothing else moves."""

from dataclasses import dataclass

import torch

from nlpkit.text.batch import TensorFields


@dataclass(frozen=True)
class Inner(TensorFields):
    numbers_B: torch.Tensor


@dataclass(frozen=True)
class Outer(TensorFields):
    examples: list
    inner: Inner
    parts: tuple
    missing: torch.Tensor | None


def test_all_tensors_move_and_the_rest_stays():
    inner = Inner(torch.arange(3))
    batch = Outer(["a"], inner, ([1], (torch.ones(2), inner)), None)
    moved = batch.to("meta")
    assert type(moved) is Outer
    assert moved.examples is batch.examples
    assert moved.missing is None
    assert moved.inner.numbers_B.device.type == "meta"
    rows, (ones_B, again) = moved.parts
    assert rows == [1]
    assert ones_B.device.type == again.numbers_B.device.type == "meta"
    assert batch.inner.numbers_B.device.type == "cpu"
