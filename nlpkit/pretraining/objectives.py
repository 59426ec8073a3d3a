"""Blocks of tokens to batches with targets: masked words, or the continuation of a prefix.

    masked   [CLS] block [SEP], whole words masked with probability p; of their tokens 80 % become [MASK], 10 % another
             token, 10 % stay; the target is the token at its own place. Every token sees every other.
    prefix   [CLS] source [SEP] target, cut at a random place; the target is the next token, from the [SEP] on, and a
             token of the target sees the source and what is left of it: the mask of generation.

Sources: Devlin et al. 2018, arxiv.org/abs/1810.04805; Cui et al. 2019 (whole words), arxiv.org/abs/1906.08101; Dong et
al. 2019 (prefix), arxiv.org/abs/1905.03197. B batch, T tokens, N targets, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from nlpkit.encoders.transformer import Attention
from nlpkit.pretraining.corpus import word_bit
from nlpkit.text.tokenizer import TokenBatch

TARGET_STEP = 256  # the head sees few different numbers of targets, so that kernels made for a shape are found again


@dataclass(frozen=True)
class Symbols:
    """The ids that the objectives need; `first` is the lowest that is not special."""

    cls_id: int
    sep_id: int
    mask_id: int
    first: int
    vocabulary: int


@dataclass(frozen=True)
class PretrainBatch:
    """Tokens, the places (row * T + column) whose hidden vectors predict, and the ids to predict there."""

    tokens: TokenBatch
    places_N: torch.Tensor
    targets_N: torch.Tensor
    attention: Attention

    def to(self, device: Any) -> PretrainBatch:
        """The batch on a device."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            places_N=self.places_N.to(device, non_blocking=True),
            targets_N=self.targets_N.to(device, non_blocking=True),
        )


class Pretrainer(nn.Module):
    """An encoder with its masked-LM head; model(batch) -> a loss for every target, so that a step weighs them alike."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: PretrainBatch) -> torch.Tensor:
        """loss_N, in nats."""
        return nn.functional.cross_entropy(self.logits(batch).float(), batch.targets_N, reduction="none")

    def logits(self, batch: PretrainBatch) -> torch.Tensor:
        """logits_NV at the places of the batch."""
        hidden_NH = self.encoder(batch.tokens, batch.attention).flatten(0, 1)[batch.places_N]
        count = len(hidden_NH)
        padded = nn.functional.pad(hidden_NH, (0, 0, 0, -count % TARGET_STEP))
        return self.encoder.token_logits(padded)[:count]


def masked_batch(
    blocks: Sequence[np.ndarray], randoms: Sequence[np.random.Generator], share: float, symbols: Symbols
) -> PretrainBatch:
    """Blocks of one length with whole words masked; `randoms` has a generator for each, `share` is p."""
    rows, places, targets = [], [], []
    for number, (block, random) in enumerate(zip(blocks, randoms, strict=True)):
        ids, begins = _split(block)
        hidden = _whole_words(begins, random, share) & (ids != symbols.sep_id)
        dice = random.random(len(ids))
        others = random.integers(symbols.first, symbols.vocabulary, len(ids))
        shown = np.where(dice < 0.8, symbols.mask_id, np.where(dice < 0.9, others, ids))
        rows.append(np.concatenate([[symbols.cls_id], np.where(hidden, shown, ids), [symbols.sep_id]]))
        places.append(number * len(rows[0]) + 1 + np.flatnonzero(hidden))
        targets.append(ids[hidden])
    return _batch(rows, np.zeros_like(rows), places, targets, "full")


def prefix_batch(
    blocks: Sequence[np.ndarray], randoms: Sequence[np.random.Generator], symbols: Symbols
) -> PretrainBatch:
    """Blocks of one length, each cut into source and target at a place of its own."""
    rows, segments, places, targets = [], [], [], []
    for number, (block, random) in enumerate(zip(blocks, randoms, strict=True)):
        ids, _ = _split(block)
        cut = int(random.integers(1, max(2, len(ids) - 1)))
        row = np.concatenate([[symbols.cls_id], ids[:cut], [symbols.sep_id], ids[cut:]])
        rows.append(row)
        segments.append((np.arange(len(row)) > cut + 1).astype(np.int64))
        places.append(number * len(row) + np.arange(cut + 1, len(row) - 1))
        targets.append(ids[cut:])
    return _batch(rows, segments, places, targets, "prefix")


def _split(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ids, whether a word begins) of stored tokens."""
    bit = word_bit(block)
    return (block & (bit - 1)).astype(np.int64), (block & bit) > 0


def _whole_words(begins: np.ndarray, random: np.random.Generator, share: float) -> np.ndarray:
    """Whether each token is masked: every word is, or is not, as a whole; of the words at least one is."""
    word = np.cumsum(begins)
    dice = random.random(word[-1] + 1)
    return (dice < max(share, dice[word].min() + 1e-9))[word]


def _batch(rows: Any, segments: Any, places: Any, targets: Any, attention: Attention) -> PretrainBatch:
    token_ids_BT = torch.from_numpy(np.stack(rows))
    everywhere = torch.ones_like(token_ids_BT, dtype=torch.bool)
    return PretrainBatch(
        tokens=TokenBatch(token_ids_BT, torch.from_numpy(np.stack(segments)), everywhere, everywhere),
        places_N=torch.from_numpy(np.concatenate(places)),
        targets_N=torch.from_numpy(np.concatenate(targets)),
        attention=attention,
    )
