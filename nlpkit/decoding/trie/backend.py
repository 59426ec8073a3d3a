"""The three step backends of `TrieTable`. They find the same candidates; of equal scores any may
come first.

    ragged   as much work as there are continuations; asks the device for their number
    fixed    shapes depend on nothing but those of the arguments and the depth: the host never waits
    fused    both at once: two Triton kernels (`kernels`)

The first two are in `continuations`.

Triton is no dependency: torch brings it where it is made for CUDA.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Literal

import torch

from nlpkit.errors import SettingsError

Backend = Literal["ragged", "fixed", "fused"]


def choose_backend(device: torch.device, wanted: Backend | None) -> Backend:
    """The backend that is wanted; None: ragged on a CPU, fused on CUDA with Triton from 3.4 on,
    else fixed.

    Raises SettingsError for `fused` without CUDA or Triton. (On a CPU Triton's interpreter will do,
    for tests.)
    """
    loaded = kernels() if device.type == "cuda" or wanted == "fused" else None
    has_fused = loaded is not None and (device.type == "cuda" or loaded.INTERPRETED)
    if wanted == "fused" and not has_fused:
        raise SettingsError(
            f"tables: fused steps need CUDA and Triton from 3.4 on: got {device}",
            hint='backend="fixed"',
        )
    if wanted is not None:
        return wanted
    if device.type == "cpu":
        return "ragged"
    return "fused" if has_fused else "fixed"


@cache
def kernels() -> ModuleType | None:
    """`nlpkit.decoding.trie.kernels`, None where there is no Triton or one that is too old."""
    try:
        from nlpkit.decoding.trie import kernels
    except ImportError as error:
        if not (error.name or "").startswith("triton"):
            raise
        return None
    return kernels
