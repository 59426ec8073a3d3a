"""Sequence to sequence with one encoder: the source is read as a whole, the target written from
left to right.

    [CLS] source [SEP] target          segments 0 ... 0 1 ... 1
                    |  |   ...|
                  target    [SEP]      each predicts the next token, the last one the end

The source sees the source, the target the source and itself up to here (`attention="prefix"`); the
logits are those of the masked-LM head. The end is predicted and never read. The loss of an example
is

    loss_b = - sum_t log p(target_t | source, target_<t)

in nats, the end included; divided by count_b it is the mean.

Training can show the model a target with some tokens replaced (`disturbed`), so that it learns to
go on after errors. Or it reads its own guesses (TeaForN, `passes` = N): in every further pass the
place of a target token holds the hidden vector that had to predict this token in the pass before,
so that pass i learns to look i tokens ahead. The loss of pass i counts LATER^(i - 1); decoding is
as in the first.

Decoding is cached: see `nlpkit.layers.cached_decoder`.

Source: Dong et al. 2019, Unified Language Model Pre-training, arxiv.org/abs/1905.03197;
https://kexue.fm/archives/6933; replacement: https://kexue.fm/archives/7259; TeaForN: Goodman et al.
2020, arxiv.org/abs/2010.03494, and /7818.
Legend: B batch, T tokens, N targets, V vocabulary, H hidden, E word vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from nlpkit.encoders.base import check_attention, encode
from nlpkit.errors import SettingsError
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import TokenBatch, Tokenizer, pad

E = TypeVar("E")

LATER = 0.5
"""How much less each further pass of TeaForN counts; ours."""


@dataclass(frozen=True)
class Pair:
    """Token ids without special tokens, except such as the task puts between parts of the
    source."""

    source: Sequence[int]
    target: Sequence[int] | None
    """None where there is nothing to learn: the loss is 0."""
    shown: Sequence[int] | None = None
    """What the model reads in place of the target, of equal length; None for the target itself."""


@dataclass(frozen=True)
class PrefixBatch(TensorFields):
    """Tokens, the places (row * T + column) whose hidden vectors predict, and the ids to predict
    there."""

    tokens: TokenBatch
    places_N: torch.Tensor
    targets_N: torch.Tensor
    count_B: torch.Tensor
    """Targets of each row, the end included."""


@dataclass(frozen=True)
class Seq2SeqBatch(TensorFields, Generic[E]):
    """What a sequence-to-sequence task collates: `pairs` is for the loss, the rest for decoding."""

    examples: list[E]
    sources: TokenBatch
    pairs: PrefixBatch | None


def collate_pairs(
    pairs: Sequence[Pair], tokenizer: Tokenizer, end_id: int | None = None
) -> PrefixBatch:
    """Pairs padded to the longest; `end_id` (None: [SEP]) is predicted after the last token of a
    target."""
    shown = [(pair.target or ()) if pair.shown is None else pair.shown for pair in pairs]
    tokens = _tokens([pair.source for pair in pairs], shown, tokenizer)
    end_id = tokenizer.sep_id if end_id is None else end_id
    width = tokens.token_ids_BT.shape[1]
    firsts = [
        row * width + len(pair.source) + 1 for row, pair in enumerate(pairs)
    ]  # where each row's [SEP] stands
    targets = [() if pair.target is None else (*pair.target, end_id) for pair in pairs]
    counts = list(map(len, targets))
    return PrefixBatch(
        tokens=tokens,
        places_N=torch.cat(
            [
                torch.arange(first, first + count)
                for first, count in zip(firsts, counts, strict=True)
            ]
        ),
        targets_N=torch.tensor(
            [token for target in targets for token in target], dtype=torch.int64
        ),
        count_B=torch.tensor(counts),
    )


def collate_sources(
    sources: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    begun: Sequence[Sequence[int]] | None = None,
) -> TokenBatch:
    """[CLS] source [SEP], and what is `begun` of each target, padded to the longest."""
    return _tokens(sources, [()] * len(sources) if begun is None else begun, tokenizer)


def disturbed(
    target: Sequence[int], random: np.random.Generator, rate: float = 0.5, share: float = 0.3
) -> list[int]:
    """With probability `rate` the target with a `share` of its tokens replaced by tokens drawn from
    its own."""
    ids = np.array(target, dtype=np.int64)
    if len(ids) == 0 or random.random() >= rate:
        return ids.tolist()
    others = random.choice(np.unique(ids), len(ids))
    return np.where(random.random(len(ids)) < share, others, ids).tolist()


class PrefixLM(nn.Module):
    """A transformer with its masked-LM head as a sequence-to-sequence model.

    `passes` is the N of TeaForN. Raises SettingsError where it asks for hidden vectors that are no
    word vectors.
    """

    def __init__(self, encoder: Any, passes: int = 1):
        super().__init__()
        check_attention(encoder, "prefix")
        self.encoder = encoder
        self.passes = passes
        if passes > 1:
            size = encoder.word_vectors(torch.zeros(1, 1, dtype=torch.int64)).shape[-1]
            if size != encoder.hidden_size:
                raise SettingsError(
                    f"TeaForN: expected word vectors of size {encoder.hidden_size}, got {size}"
                )

    def forward(self, batch: PrefixBatch | Seq2SeqBatch[Any]) -> torch.Tensor:
        """loss_B, the sum over the targets of a row, in nats; divide by `count_B` for the mean."""
        if isinstance(batch, Seq2SeqBatch):
            assert batch.pairs is not None  # collated with targets
            batch = batch.pairs
        row_N = batch.places_N // batch.tokens.token_ids_BT.shape[1]
        loss_B = torch.zeros(len(batch.count_B), device=row_N.device)
        words_BTE = None
        for number in range(self.passes):
            hidden_BTH = encode(self.encoder, batch.tokens, "prefix", words_BTE=words_BTE)
            logits_NV = self._logits(batch, hidden_BTH)
            loss_N = nn.functional.cross_entropy(
                logits_NV.float(), batch.targets_N, reduction="none"
            )
            loss_B = loss_B.index_add(0, row_N, LATER**number * loss_N)
            if number + 1 < self.passes:
                words_BTE = self._guesses(batch.tokens, hidden_BTH)
        return loss_B

    def logits(self, batch: PrefixBatch) -> torch.Tensor:
        """logits_NV at the places of the batch."""
        return self._logits(batch, encode(self.encoder, batch.tokens, "prefix"))

    def _logits(self, batch: PrefixBatch, hidden_BTH: torch.Tensor) -> torch.Tensor:
        return self.encoder.token_logits(hidden_BTH.flatten(0, 1)[batch.places_N])

    def _guesses(self, tokens: TokenBatch, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """For the target the hidden vectors that had to predict its tokens, for the source its own
        word vectors."""
        words_BTE = self.encoder.word_vectors(tokens.token_ids_BT)
        is_target_BT1 = tokens.segment_ids_BT.bool()[..., None]
        return torch.where(is_target_BT1, hidden_BTH.roll(1, 1).to(words_BTE.dtype), words_BTE)


def _tokens(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], tokenizer: Tokenizer
) -> TokenBatch:
    rows = [
        [tokenizer.cls_id, *source, tokenizer.sep_id, *target]
        for source, target in zip(sources, targets, strict=True)
    ]
    lengths_B1 = torch.tensor([len(row) for row in rows])[:, None]
    source_B1 = torch.tensor([len(source) for source in sources])[:, None]
    # rounded up for kernels compiled for a shape, but not beyond what the encoder takes
    width = max(tokenizer.max_length, int(lengths_B1.max())) if tokenizer.max_length else None
    token_ids_BT = pad(rows, tokenizer.pad_id)[:, :width]
    position_T = torch.arange(token_ids_BT.shape[1])
    mask_BT = position_T < lengths_B1
    return TokenBatch(
        token_ids_BT=token_ids_BT,
        segment_ids_BT=((position_T > source_B1 + 1) & mask_BT).long(),
        mask_BT=mask_BT,
        content_BT=(position_T > 0) & (position_T <= source_B1),
    )
