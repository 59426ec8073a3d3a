"""A language model under a condition: its examples, its batches and the model itself.

    loss = - sum_t log p(token_t | tokens before it, condition)        in nats, the end included

Legend: B batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from nlpkit.modules.conditional_norm import condition_norms
from nlpkit.modules.conditions import Condition, ConditionSpace, ConditionVectors
from nlpkit.modules.generation import Gold
from nlpkit.modules.prefix_lm import PrefixBatch, PrefixLM
from nlpkit.text.tokenizer import TokenBatch


@dataclass(frozen=True)
class Example:
    """A condition, how the text begins and what form it is to have, and the tokens to learn."""

    number: int
    condition: Condition
    prefix: str
    prefix_ids: list[int]
    form: str
    gold: Gold | None
    target: list[int]
    is_cut: bool

    def __len__(self) -> int:
        return 2 + max(len(self.prefix_ids), len(self.target))


@dataclass(frozen=True)
class Batch:
    """Conditions as tensors; `pairs` and the wrong conditions are for what is known of the gold."""

    examples: list[Example]
    sources: TokenBatch
    condition: torch.Tensor
    wrong: torch.Tensor | None = None
    pairs: PrefixBatch | None = None

    def to(self, device: Any) -> Batch:
        """The batch on a device."""
        parts = {name: getattr(self, name) for name in ("sources", "condition", "wrong", "pairs")}
        return replace(self, **{name: part.to(device) for name, part in parts.items() if part is not None})


class Model(PrefixLM):
    """A prefix language model whose norms are moved by a condition."""

    def __init__(self, encoder: Any, space: ConditionSpace, size: int):
        super().__init__(encoder)
        self.vectors = ConditionVectors(space, size)
        self.norms = condition_norms(encoder.model, size)

    def forward(self, batch: Batch) -> torch.Tensor:  # type: ignore[override]  # with a condition
        """loss_B of the texts, in nats."""
        return self.nats(batch, batch.condition)

    def nats(self, batch: Batch, condition: torch.Tensor) -> torch.Tensor:
        """-log p of the texts under a condition: (B,)."""
        assert batch.pairs is not None
        with self.norms.given(self.vectors(condition)):
            return super().forward(batch.pairs)
