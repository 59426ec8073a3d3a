"""The precision of matrix products, measured where the user leaves it open.

That a processor has instructions for bfloat16 does not say that they are faster: without tiles
(AMX) they halve the speed of some and double that of others. So a feed-forward block is timed in
both precisions, once in a process, separately for training (with its gradient) and prediction.
bfloat16 must win clearly, since float32 is the more exact of the two.

On a processor `auto` predicts in float32 whatever is faster: in bfloat16 a line gives other bytes
in another batch (of 17 lines classified alone and in batches of 2, 3 and 64, 12 had another score;
of 17 math problems 1 to 4 another equation), in float32 none did.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

Precision = Literal["fp32", "bf16"]
Purpose = Literal["training", "prediction"]

TOKENS, HIDDEN = 256, 256
"""Size of the block: what a small batch gives to a small encoder. Larger ones behave alike."""
BUDGET = 0.04
"""Seconds that the rounds of a measurement take, all together."""
WIN = 0.8
"""bfloat16 is taken where it needs at most this share of float32's time."""


@dataclass(frozen=True)
class Choice:
    """A precision and the reason for it, for `--dry-run`, `nlpkit env` and the run's config."""

    precision: Precision
    why: str

    def __str__(self) -> str:
        return f"{self.precision} ({self.why})"


def choose(wanted: str, device: torch.device, purpose: Purpose) -> Choice:
    """The precision for a purpose: as wanted, or for `auto` the faster one on this device, but for
    predictions on a processor (see above)."""
    if wanted != "auto":
        return Choice("bf16" if wanted == "bf16" else "fp32", "as set")
    if purpose == "prediction" and device.type == "cpu":
        return Choice("fp32", "the same line gives the same bytes in any batch")
    if not has_bfloat16(device):
        return Choice("fp32", f"this {_name(device)} has no bfloat16")
    seconds = measure(device.type, purpose)
    precision: Precision = "bf16" if seconds["bf16"] <= WIN * seconds["fp32"] else "fp32"
    figures = ", ".join(f"{name} {1000 * value:.2f} ms" for name, value in seconds.items())
    return Choice(precision, f"measured for {purpose}: {figures}")


def recorded_choice(record: Path) -> Choice | None:
    """The precision of a training that was begun, from the config of its run or the record of its
    pretraining; None where there is none."""
    try:
        found = json.loads(record.read_bytes())["precision"]
    except (OSError, KeyError, TypeError, ValueError):
        return None
    if found not in ("no", "fp32", "bf16"):
        return None
    return Choice("bf16" if found == "bf16" else "fp32", "that of the training so far")


def report(device: torch.device) -> dict[str, Any]:
    """What `auto` takes on this device, and why: `{"training": {...}, "prediction": {...}}`."""
    purposes: tuple[Purpose, ...] = ("training", "prediction")
    return {purpose: asdict(choose("auto", device, purpose)) for purpose in purposes}


@cache
def measure(device_type: str, purpose: Purpose) -> dict[str, float]:
    """Seconds of a pass through the block by precision: the shortest of some rounds.

    It takes some 50 ms the first time, and is remembered for the process. No random number is
    drawn.
    """
    device = torch.device(device_type)
    block, input_TH = _block(device)
    passes = {"fp32": False, "bf16": True}
    for narrow in passes.values():  # the first pass compiles kernels
        _time(block, input_TH, purpose, narrow)
    shortest = dict.fromkeys(passes, float("inf"))
    end = time.perf_counter() + BUDGET
    rounds = 0
    while rounds < 2 or time.perf_counter() < end:
        for name, narrow in passes.items():
            shortest[name] = min(shortest[name], _time(block, input_TH, purpose, narrow))
        rounds += 1
    return shortest


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bfloat16 at all (GPU, AVX512-BF16, AMX); emulation, which
    is slow, does not count."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False
    return device.type == "cpu" and ("avx512_bf16" in flags or "amx_bf16" in flags)


def _block(device: torch.device) -> tuple[nn.Module, torch.Tensor]:
    """A feed-forward block and its input, filled without the generator of random numbers."""
    with torch.device("meta"):
        block = nn.Sequential(
            nn.Linear(HIDDEN, 4 * HIDDEN), nn.GELU(), nn.Linear(4 * HIDDEN, HIDDEN)
        )
    block = block.to_empty(device=device)
    with torch.no_grad():
        for parameter in block.parameters():
            places = torch.arange(parameter.numel(), device=device)
            parameter.copy_(0.1 * torch.sin(places.float()).view_as(parameter))
    places = torch.arange(TOKENS * HIDDEN, device=device)
    return block, torch.cos(places.float()).view(TOKENS, HIDDEN)


def _time(block: nn.Module, input_TH: torch.Tensor, purpose: Purpose, narrow: bool) -> float:
    """Seconds of one pass, for training with its gradient."""
    device = input_TH.device.type
    start = time.perf_counter()
    with torch.set_grad_enabled(purpose == "training"):
        with torch.autocast(device, torch.bfloat16, enabled=narrow):
            output_TH = block(input_TH)
        if purpose == "training":
            block.zero_grad()
            output_TH.float().sum().backward()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _name(device: torch.device) -> str:
    return "processor" if device.type == "cpu" else "GPU"
