"""What techniques share that move weights for a while, or ask for the gradient of a whole step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nlpkit.errors import SettingsError


def token_table(model: Any) -> torch.Tensor:
    """The weights (V, H) of the first embedding of the model's encoder, which is that of its tokens
    (`Encoder`); those of positions, segments and words stay. Raises SettingsError where there is
    none."""
    for module in model.encoder.modules():
        if isinstance(module, nn.Embedding):
            return module.weight
    raise SettingsError("train.techniques: the encoder has no embedding table")


def own_gradients(parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies of this process's gradients, zeros where there is none."""
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]


def summed(accelerator: Any, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The sums of the tensors over the processes, as one message. All processes must call it."""
    if accelerator.num_processes == 1:
        return list(tensors)
    flat = accelerator.reduce(torch.cat([tensor.flatten() for tensor in tensors]), "sum")
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def unit(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor over its norm; zeros stay zeros."""
    norm = float(tensor.norm())
    return tensor / norm if norm else tensor


def random_like(tensor: torch.Tensor, seed: int, step: int) -> torch.Tensor:
    """Normally distributed numbers of the tensor's shape, which follow from seed and step alone: the
    same in every process, and after a resume."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device)


def examples_of(accelerator: Any, sums_2: torch.Tensor) -> float:
    """The number of examples of a step over all processes, from this process's sums."""
    return float(accelerator.reduce(sums_2.clone(), "sum")[1])


@contextmanager
def put_back(parameters: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Gives copies of the parameters, and puts them back at the end of the block."""
    originals = [parameter.detach().clone() for parameter in parameters]
    try:
        yield originals
    finally:
        with torch.no_grad():
            for parameter, original in zip(parameters, originals, strict=True):
                parameter.copy_(original)
