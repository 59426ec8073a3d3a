"""Blocks of tokens to batches with targets: masked words, the continuation of a prefix, replaced
tokens, or the next token. (Hidden spans: `spans`.)

    masked   [CLS] block [SEP], whole words masked with probability p; of their tokens 80 % become
             [MASK], 10 % another token, 10 % stay; the target is the token at its own place. Every
             token sees every other.
    prefix   [CLS] source [SEP] target, cut at a random place; the target is the next token, from
             the [SEP] on, and a token of the target sees the source and what is left of it: the
             mask of generation.
    replaced a masked batch, whose masked places are filled with tokens drawn from what the encoder
             itself expects there; the target of every token is whether it is not the one of the
             text.
    next     [CLS] block [SEP]; the target of a place is the next token, for an encoder that sees
             only what is left of it. For one that reads from the end it is the token before
             (`previous`); one that reads both ways gives two vectors for a token (`both`).

Sources: Devlin et al. 2018, arxiv.org/abs/1810.04805; Cui et al. 2019 (whole words),
arxiv.org/abs/1906.08101; Dong et al. 2019 (prefix), arxiv.org/abs/1905.03197; Clark et al. 2020
(replaced tokens), arxiv.org/abs/2003.10555; Xu et al. 2021 (one network draws, in an earlier epoch,
and detects), arxiv.org/abs/2106.07176. B batch, T tokens, N targets, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from nlpkit.encoders.base import Attention, encode, encode_layers
from nlpkit.pretraining.corpus import split_tokens
from nlpkit.pretraining.distillation import Distillation
from nlpkit.pretraining.pointing import Pointers, Pointing
from nlpkit.pretraining.symbols import Symbols
from nlpkit.pretraining.teacher import Lesson
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import TokenBatch

Kind = Literal["masked", "prefix", "replaced", "next", "previous", "both", "spans"]
DETECTION_WEIGHT = 4.0
"""Of the loss of replaced tokens, which is small: brings the gradient of such a step to the length
of the others, where `pretrain.clip_norm` makes them equal. (The 50 of Clark et al. is for two
losses in one step.)"""
# the head sees few different numbers of targets, so that kernels made for a shape are found again
TARGET_STEP = 256


@dataclass(frozen=True)
class PretrainBatch(TensorFields):
    """Tokens, the places (row * T + column) whose hidden vectors predict, and the ids to predict
    there. Where an encoder gives two vectors for a token, one behind the other, a place is twice
    that, plus 1 for the second.

    A batch of replaced tokens has `dice_N` too, numbers in [0, 1) that choose what the places are
    filled with. A batch of masked words has a `lesson`, where there is a teacher. One of spans has
    `pointers`, and the N targets are those of its rows without a span.
    """

    tokens: TokenBatch
    places_N: torch.Tensor
    targets_N: torch.Tensor
    attention: Attention
    dice_N: torch.Tensor | None = None
    lesson: Lesson | None = None
    pointers: Pointers | None = None


class Pretrainer(nn.Module):
    """An encoder with its masked-LM head; model(batch) -> a loss for every target, so that a step
    weighs them alike.

    With `detects` it has a head for replaced tokens as well, with `points` one for hidden spans,
    and with a teacher a `Distillation`; none is kept with the encoder. What the encoder lacks to a
    teacher counts `teacher_weight` times.
    """

    def __init__(
        self,
        encoder: Any,
        detects: bool = False,
        points: bool = False,
        distillation: Distillation | None = None,
        teacher_weight: float = 0.0,
    ):
        super().__init__()
        self.teacher_weight = teacher_weight
        self.encoder = encoder
        size = encoder.hidden_size
        self.detector = (
            nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Linear(size, 1)) if detects else None
        )
        self.pointing = Pointing(size) if points else None
        self.distillation = distillation

    def forward(self, batch: PretrainBatch) -> torch.Tensor:
        """loss_N in nats, one for each target; for a batch of replaced tokens loss_M of all
        M = B * T tokens, times `DETECTION_WEIGHT`; for a batch of spans those of masked words, then
        those of the pointers.

        A target of a batch with a lesson bears the loss of its row's lesson as well. A row's loss
        depends on the row alone, so that a step may be cut anywhere.
        """
        if batch.lesson is not None:
            return self._taught(batch, batch.lesson)
        if batch.pointers is not None:
            return self._pointed(batch, batch.pointers)
        if batch.dice_N is None:
            logits_NV = self.logits(batch).float()
            return nn.functional.cross_entropy(logits_NV, batch.targets_N, reduction="none")
        logits_M, replaced_M = self.detect(batch)
        losses_M = nn.functional.binary_cross_entropy_with_logits(
            logits_M, replaced_M.float(), reduction="none"
        )
        return DETECTION_WEIGHT * losses_M

    def logits(self, batch: PretrainBatch) -> torch.Tensor:
        """logits_NV at the N places of the batch.

        The head sees a multiple of TARGET_STEP rows; those added are cut off again.
        """
        return self._logits_of(encode(self.encoder, batch.tokens, batch.attention), batch)

    def _taught(self, batch: PretrainBatch, lesson: Lesson) -> torch.Tensor:
        """loss_N of masked words and, `teacher_weight` times, of each one's row: one pass."""
        assert self.distillation is not None
        layers = self.taught_layers(batch)
        logits_NV = self._logits_of(layers[-1], batch).float()
        loss_N = nn.functional.cross_entropy(logits_NV, batch.targets_N, reduction="none")
        loss_B = self.distillation(lesson, layers)
        row_N = batch.places_N // batch.tokens.token_ids_BT.shape[1]
        return loss_N + self.teacher_weight * loss_B[row_N]

    def _pointed(self, batch: PretrainBatch, pointers: Pointers) -> torch.Tensor:
        """The losses of the rows without a span, which have masked words, and of the pointers."""
        assert self.pointing is not None
        hidden_BTH = encode(self.encoder, batch.tokens)
        logits_NV = self._logits_of(hidden_BTH, batch).float()
        loss_N = nn.functional.cross_entropy(logits_NV, batch.targets_N, reduction="none")
        return torch.cat([loss_N, self.pointing.loss(hidden_BTH, batch.tokens.mask_BT, pointers)])

    def taught_layers(self, batch: PretrainBatch) -> list[torch.Tensor]:
        """hidden_BTH of the encoder's layers that learn from a teacher; the last is its last."""
        assert self.distillation is not None
        numbers = self.distillation.numbers
        return encode_layers(self.encoder, batch.tokens, batch.attention, numbers)

    def _logits_of(self, hidden_BTH: torch.Tensor, batch: PretrainBatch) -> torch.Tensor:
        of_head = self.encoder.head.dense.in_features
        hidden_NH = hidden_BTH.reshape(-1, of_head)[batch.places_N]
        count = len(hidden_NH)
        padded = nn.functional.pad(hidden_NH, (0, 0, 0, -count % TARGET_STEP))
        return self.encoder.token_logits(padded)[:count]

    def detect(self, batch: PretrainBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits_M, replaced_M) of the M = B * T tokens of a batch of replaced tokens: the score
        that a token was replaced, and whether another one stands in its place.

        A draw that hits the token of the text replaces nothing.
        """
        assert self.detector is not None
        assert batch.dice_N is not None
        # Detached, not under no_grad: old autocasts keep weights cast there, and the second pass
        # would teach nothing.
        drawn_N = draw(self.logits(batch).detach(), batch.dice_N)
        token_ids_M = batch.tokens.token_ids_BT.flatten()
        shown_BT = token_ids_M.index_put((batch.places_N,), drawn_N).view_as(
            batch.tokens.token_ids_BT
        )
        replaced_M = torch.zeros_like(token_ids_M, dtype=torch.bool)
        replaced_M[batch.places_N] = drawn_N != batch.targets_N
        shown = replace(batch.tokens, token_ids_BT=shown_BT)
        hidden_BTH = encode(self.encoder, shown, batch.attention)
        return self.detector(hidden_BTH).float().flatten(), replaced_M


def draw(logits_NV: torch.Tensor, dice_N: torch.Tensor) -> torch.Tensor:
    """token_ids_N by the probabilities of each row of logits_NV: the first id whose cumulated
    probability is above the number of the row in dice_N, which lies in [0, 1)."""
    heights_NV = logits_NV.float().softmax(-1).cumsum(-1)
    # The last height is 1 but for rounding, and the number is stretched with it.
    dice_N1 = dice_N[:, None].to(heights_NV) * heights_NV[:, -1:]
    found_N = torch.searchsorted(heights_NV, dice_N1, right=True)[:, 0]
    return found_N.clamp(max=logits_NV.shape[-1] - 1)


def masked_batch(
    blocks: Sequence[np.ndarray],
    randoms: Sequence[np.random.Generator],
    share: float,
    symbols: Symbols,
) -> PretrainBatch:
    """Blocks (tokens,) of one length (see `corpus`) with whole words masked.

    `randoms` has a generator for each block, so that a block is masked alike whatever stands beside
    it; `share` is the p of the module docstring.
    """
    rows, places, targets = [], [], []
    for number, (block, random) in enumerate(zip(blocks, randoms, strict=True)):
        row, columns, ids = masked_row(block, random, share, symbols)
        rows.append(row)
        places.append(number * len(row) + columns)
        targets.append(ids)
    return _batch(rows, np.zeros_like(rows), places, targets, "full")


def masked_row(
    block: np.ndarray, random: np.random.Generator, share: float, symbols: Symbols
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(token ids with [CLS] and [SEP], columns of the masked tokens, the ids there) of a block."""
    ids, begins = split_tokens(block)
    hidden = _whole_words(begins, random, share) & (ids != symbols.sep_id)
    dice = random.random(len(ids))
    others = random.integers(symbols.first, symbols.vocabulary, len(ids))
    shown = np.where(dice < 0.8, symbols.mask_id, np.where(dice < 0.9, others, ids))
    inner = np.where(hidden, shown, ids)
    row = np.concatenate([[symbols.cls_id], inner, [symbols.sep_id]])
    return row, 1 + np.flatnonzero(hidden), ids[hidden]


def replaced_batch(
    blocks: Sequence[np.ndarray],
    randoms: Sequence[np.random.Generator],
    share: float,
    symbols: Symbols,
) -> PretrainBatch:
    """The batch of `masked_batch`, with a number in [0, 1) for each masked token: dice_N, by which
    the encoder fills it in."""
    masked = masked_batch(blocks, randoms, share, symbols)
    dice_BT = np.stack([random.random(masked.tokens.token_ids_BT.shape[1]) for random in randoms])
    return replace(masked, dice_N=torch.from_numpy(dice_BT).flatten()[masked.places_N])


def prefix_batch(
    blocks: Sequence[np.ndarray], randoms: Sequence[np.random.Generator], symbols: Symbols
) -> PretrainBatch:
    """Blocks (tokens,) of one length, each cut into source and target at a place of its own; source
    and target have at least one token."""
    rows, segments, places, targets = [], [], [], []
    for number, (block, random) in enumerate(zip(blocks, randoms, strict=True)):
        ids, _ = split_tokens(block)
        cut = int(random.integers(1, max(2, len(ids) - 1)))
        row = np.concatenate([[symbols.cls_id], ids[:cut], [symbols.sep_id], ids[cut:]])
        rows.append(row)
        segments.append((np.arange(len(row)) > cut + 1).astype(np.int64))
        places.append(number * len(row) + np.arange(cut + 1, len(row) - 1))
        targets.append(ids[cut:])
    return _batch(rows, segments, places, targets, "prefix")


def next_batch(
    blocks: Sequence[np.ndarray], kind: Kind, directions: int, symbols: Symbols
) -> PretrainBatch:
    """Blocks (tokens,) of one length, whose tokens are all to be told: from what is left of each
    (`next`), from what is right of each (`previous`), or both.

    `directions` is how many vectors the encoder gives for a token.
    """
    rows, places, targets = [], [], []
    for number, block in enumerate(blocks):
        ids, _ = split_tokens(block)
        rows.append(np.concatenate([[symbols.cls_id], ids, [symbols.sep_id]]))
        left = number * len(rows[0]) + np.arange(len(ids))  # the places before each token
        if kind != "previous":
            places.append(left * directions)
            targets.append(ids)
        if kind != "next":
            places.append((left + 2) * directions + 1)
            targets.append(ids)
    return _batch(rows, np.zeros_like(rows), places, targets, "full")


def _whole_words(begins: np.ndarray, random: np.random.Generator, share: float) -> np.ndarray:
    """Whether each token is masked: every word is, or is not, as a whole; of the words at least one
    is."""
    word_T = np.cumsum(begins)  # the number of the word that a token lies in
    dice = random.random(word_T[-1] + 1)
    smallest = dice[word_T].min()
    is_masked = dice < max(share, smallest + 1e-9)
    return is_masked[word_T]


def _batch(
    rows: Any, segments: Any, places: Any, targets: Any, attention: Attention
) -> PretrainBatch:
    token_ids_BT = torch.from_numpy(np.stack(rows))
    everywhere = torch.ones_like(token_ids_BT, dtype=torch.bool)
    return PretrainBatch(
        tokens=TokenBatch(
            token_ids_BT, torch.from_numpy(np.stack(segments)), everywhere, everywhere
        ),
        places_N=torch.from_numpy(np.concatenate(places)),
        targets_N=torch.from_numpy(np.concatenate(targets)),
        attention=attention,
    )
