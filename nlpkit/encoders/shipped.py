"""The checkpoints that come with the package, and the record that a pretraining leaves in a
checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TINY = Path(__file__).parent / "tiny"
TOKENIZER = TINY / "tokenizer.json"
"""Of the encoders that start from random weights."""
RECORD = "pretraining.json"
"""What `pretrain` says of a checkpoint that it made."""
NOTICE = "NOTICE"
"""Licence and origin of a checkpoint that was made from somebody's; it goes along with all that is
made from it."""


def checkpoints() -> dict[str, Path]:
    """Name -> folder of the checkpoints that ship: the folders beside this file with a
    config.json."""
    found = sorted(Path(__file__).parent.glob("*/config.json"))
    return {path.parent.name: path.parent for path in found}


def folder_of(source: str | Path) -> Path:
    """The folder of a checkpoint that ships, else the source itself as a path."""
    return checkpoints().get(str(source), Path(source))


def record_of(name: str) -> dict[str, Any] | None:
    """The record of a pretraining by nlpkit; None for an encoder that has none."""
    path = folder_of(name) / RECORD
    return json.loads(path.read_bytes()) if path.exists() else None


def notice_of(name: str) -> str | None:
    """The notice of a checkpoint; None where it has none."""
    path = folder_of(name) / NOTICE
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def stages_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of the pretrainings that led to this one, each from the weights of that before
    it, and this one."""
    before = record.get("before")
    return [*(stages_of(before) if before else []), record]


def tokens_of(record: dict[str, Any]) -> int:
    """Tokens read in all stages."""
    return sum(stage["tokens"] for stage in stages_of(record))
