"""AdamW of torch, in its fused form.

Source: Loshchilov and Hutter 2017, arxiv.org/abs/1711.05101, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nlpkit.optim.groups import Group

LEARNING_RATES = {"convolutions": 1.5e-3, "random": 1e-3, "pretrained": 3e-4, "elsewhere": 3e-5}
SUITS = ("convolutions", "elsewhere")


def new_optimizer(groups: Sequence[Group], bf16: bool) -> torch.optim.Optimizer:
    """AdamW of some groups; it computes in the precision of the weights."""
    return torch.optim.AdamW([group.settings() for group in groups], fused=True)


def moments(group: dict[str, Any]) -> dict[str, tuple[float, int]]:
    """See `nlpkit.optim`."""
    return {"exp_avg": (group["betas"][0], 1), "exp_avg_sq": (group["betas"][1], 2)}
