"""`nlpkit env`: what a report of a bug should say."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.output import write_json

PACKAGES = (
    *("nlpkit", "torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy"),
    *("jieba", "marisa-trie", "orjson", "typer", "rich", "matplotlib"),
    *("onnx", "onnxruntime"),
)
VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "WORLD_SIZE")


def env(
    as_json: Annotated[bool, typer.Option("--json", help="JSON also to a terminal.")] = False,
) -> None:
    """Say versions, processor, GPU and the precision chosen, for a bug report; JSON when piped."""
    found = environment()
    if as_json or not sys.stdout.isatty():
        write_json(found)
        return
    from cli.report_table import show

    show(found)


def environment() -> dict[str, Any]:
    """Versions, hardware and what follows from them."""
    import torch

    from nlpkit.inference.devices import resolve_device
    from nlpkit.inference.precision import has_bfloat16, report

    device = resolve_device("auto")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "device": device.type,
        "bf16": has_bfloat16(device),
        "precision": report(device),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _version(package: str) -> str | None:
    """None for a package that is not there."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
