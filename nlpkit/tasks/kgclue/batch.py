"""Questions with the keys that answer them, as the tensors of a batch, and the model's loss.

Legend: B batch, N targets of all rows, V vocabulary, I adjusted logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nlpkit.layers.prefix_lm import Pair, PrefixLM, Seq2SeqBatch, collate_pairs, collate_sources
from nlpkit.tasks.kgclue.answers import Prediction
from nlpkit.tasks.kgclue.logit_adjustment import LogitAdjustment
from nlpkit.text.tokenizer import Encoding, Tokenizer


@dataclass(frozen=True)
class Example:
    """A question, and the tokens of the key that answers it; none where a window does not name its
    subject."""

    encoding: Encoding
    gold: Prediction | None
    target: tuple[int, ...] | None

    def __len__(self) -> int:
        return len(self.encoding) + len(self.target or ())


@dataclass(frozen=True)
class Batch(Seq2SeqBatch[Example]):
    """Questions with their keys, and which logits are adjusted in the loss, by how much."""

    target_I: torch.Tensor
    """The number of the target, of all targets of the batch, whose logits are adjusted."""
    token_I: torch.Tensor
    value_I: torch.Tensor


class Model(PrefixLM):
    """An encoder with its masked-LM head."""

    # its logits are adjusted
    def forward(self, batch: Batch) -> torch.Tensor:  # type: ignore[override]
        """The loss of every question, the sum over the tokens of its key and the end, in nats:
        (B,)."""
        pairs = batch.pairs
        assert pairs is not None
        logits_NV = self.logits(pairs).float()
        logits_NV = logits_NV.index_put(
            (batch.target_I, batch.token_I), batch.value_I, accumulate=True
        )
        loss_N = nn.functional.cross_entropy(logits_NV, pairs.targets_N, reduction="none")
        row_N = pairs.places_N // pairs.tokens.token_ids_BT.shape[1]
        return loss_N.new_zeros(len(pairs.count_B)).index_add(0, row_N, loss_N)


def collate(
    examples: Sequence[Example], tokenizer: Tokenizer, adjustment: LogitAdjustment, targets: bool
) -> Batch:
    """Pads questions; with `targets` also questions with their keys."""
    sources = [question_tokens(example.encoding) for example in examples]
    pairs = None
    target_I: list[int] = []
    token_I: list[int] = []
    value_I: list[float] = []
    if targets:
        given = []
        for source, example in zip(sources, examples, strict=True):
            given.append(Pair(source, example.target))
        pairs = collate_pairs(given, tokenizer, tokenizer.cls_id)
        first = 0  # target of a row
        for example in examples:
            if example.target is None:
                continue
            for place, token, added in _adjustments(example.target, adjustment, tokenizer.sep_id):
                target_I.append(first + place)
                token_I.append(token)
                value_I.append(added)
            first += len(example.target) + 1  # and the end
    return Batch(
        list(examples),
        collate_sources(sources, tokenizer),
        pairs,
        torch.tensor(target_I, dtype=torch.int64),
        torch.tensor(token_I, dtype=torch.int64),
        torch.tensor(value_I, dtype=torch.float32),
    )


def question_tokens(encoding: Encoding) -> list[int]:
    """The token ids of a question without [CLS] and [SEP]."""
    return encoding.token_ids_T[1:-1].tolist()


def _adjustments(target: Sequence[int], adjustment: LogitAdjustment, sep_id: int) -> Any:
    """Those of the predicate of a key and of the [SEP] behind it; places are those in the key."""
    start = target.index(sep_id) + 1
    end = target.index(sep_id, start) + 1
    return adjustment.adjustments(target, start, end)
