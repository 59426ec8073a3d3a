"""Where a model runs: the device, the precision it multiplies in, and the processes that share a
training."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from nlpkit.errors import SettingsError
from nlpkit.inference.precision import choose, recorded_choice

# oneDNN keeps the kernels it compiled for each shape of a matrix, 1,024 of them by default: some
# hundred megabytes over batches of many lengths. So many are enough; it reads this with its first
# product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")


SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables by which launchers tell a process how many there are."""
PATIENCE = timedelta(days=1)
"""How long a process waits for another."""


def resolve_device(device: str) -> torch.device:
    """`cpu`, `cuda`, or `auto`: the GPU if there is one. Raises SettingsError for an absent or
    unknown device."""
    if device not in ("auto", "cpu", "cuda"):
        raise SettingsError(f'--device: expected auto, cpu or cuda, got "{device}"')
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda: torch sees no GPU")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def accelerator_for(device: str, precision: str, record: Path | None = None) -> Any:
    """The processes, the device and the precision, as an `accelerate.Accelerator`.

    `auto` takes what the JSON file `record`, of a training that is to be continued, says in its
    field `precision`; else it is measured, by the main process for all. The accelerator gets an
    attribute `precision_choice`, a `Choice`, which says why.

    One process evaluates while the others wait for its figures, longer than the half an hour (gloo)
    or ten minutes (NCCL) after which a waiting process would give up: here it waits for `PATIENCE`.
    A process that dies is noticed at once all the same, by its closed connections.

    Raises SettingsError as `resolve_device` does, and where the launcher left the processes
    without each other.
    """
    from accelerate import Accelerator, PartialState

    _refuse_strangers()
    place = resolve_device(device)
    # The processes meet here; the accelerator joins them.
    state = PartialState(cpu=place.type == "cpu", timeout=PATIENCE)
    choice = recorded_choice(record) if precision == "auto" and record is not None else None
    if choice is None and state.is_main_process:
        choice = choose(precision, place, "training")
    choice = from_main(choice)
    mixed = "bf16" if choice.precision == "bf16" else "no"
    accelerator: Any = Accelerator(cpu=place.type == "cpu", mixed_precision=mixed)
    accelerator.precision_choice = choice
    return accelerator


def _refuse_strangers() -> None:
    """Raises SettingsError where `accelerate launch --cpu` started several processes: without MPI it
    tells them where to meet and not how many they are, and each would train alone."""
    told = any(name in os.environ for name in SIZES)
    if "MASTER_ADDR" in os.environ and "ACCELERATE_USE_CPU" in os.environ and not told:
        raise SettingsError(
            "accelerate launch --cpu: the processes are not told how many they are",
            hint="torchrun --nnodes 2 --node_rank R --nproc_per_node 1 --master_addr HOST "
            "--master_port 29500 -m cli.main train ...",
        )


def from_main(value: Any) -> Any:
    """The main process's value, in every process; all must call it."""
    from accelerate.utils import broadcast_object_list

    box = [value]
    broadcast_object_list(box)
    return box[0]


def part(accelerator: Any) -> None:
    """Ends the company of the processes, all at once: one that merely exits can abort the others'
    threads (gloo)."""
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        torch.distributed.destroy_process_group()


def keep_freed_memory() -> bool:
    """Has the C library reuse blocks of any size that were freed; returns whether it (glibc) can.

    By itself it gives blocks of over 32 MB, such as the scores of a vocabulary, back at once, and
    the kernel must clear new pages in every step: a quarter of the time of a pretraining.
    """
    trim_threshold, mmap_max = -1, -4  # of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(mmap_max, 0) == 1 and mallopt(trim_threshold, -1) == 1


def peak_memory(device: torch.device) -> float:
    """The most memory so far, in MiB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if sys.platform == "darwin" else 2**10)
