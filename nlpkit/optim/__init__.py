"""Parts of training: parameter groups, schedules, optimizers, averages of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nlpkit.optim.groups import Group
from nlpkit.optim.muon import Muon


def new_optimizer(name: str, groups: Sequence[Group], bf16: bool) -> Any:
    """The optimizer `adamw` or `muon` of some groups; `bf16` lets Muon iterate in bfloat16."""
    settings = [
        {"params": g.parameters, "lr": g.learning_rate, "weight_decay": g.weight_decay}
        for g in groups
    ]
    if name == "muon":
        precision = torch.bfloat16 if bf16 else torch.float32
        return Muon(
            [
                {**values, "muon": group.hidden}
                for values, group in zip(settings, groups, strict=True)
            ],
            precision,
        )
    return torch.optim.AdamW(settings, fused=True)
