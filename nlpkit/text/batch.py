"""What every batch is: a dataclass of tensors that go to a device together."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch

T = TypeVar("T", bound="TensorFields")


@dataclass(frozen=True)
class TensorFields:
    """The base of a batch: a frozen dataclass some of whose fields hold tensors."""

    def to(self: T, device: Any) -> T:
        """The same batch with its tensors on a device.

        Moves tensors, other batches, and tuples of them; leaves all else, such as lists of
        examples, as it is.
        """
        moved = {field.name: _moved(getattr(self, field.name), device) for field in fields(self)}
        return replace(self, **moved)


def _moved(value: Any, device: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, TensorFields):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_moved(part, device) for part in value)
    return value
