"""A block of an encoder over tokens that come one after another: the keys and values of those
before are kept.

The cache only grows. Which of the kept tokens a new one sees is a mask, so that the beams of a row
share one cache: a beam that continues another inherits its row of the mask, and no key or value is
ever copied from beam to beam. Tokens of beams that were dropped stay in, unseen; a source of S
tokens and n steps of K beams take S + n * K places.

`run_block` does what the block's own forward does in evaluation, by the block's own parts. (The
caches of `transformers` hold a copy of the source for every beam.)
Legend: B batch, A attention heads, Q new tokens, K tokens in the cache, R room in it, D size of a
head, H hidden.
"""

from __future__ import annotations

import torch
from torch import nn

from nlpkit.encoders.parts import Weigh
from nlpkit.encoders.transformer_blocks import Block
from nlpkit.layers.packing import Packing
from nlpkit.layers.rotary import Rotary
from nlpkit.layers.steady_products import is_traced, spare, weighted_sums


class KeyValues:
    """Keys and values of one block, (B, A, K, D); room for them doubles when it is used up."""

    def __init__(self) -> None:
        self.length = 0
        self.source = 0
        """Tokens that were appended first, padding included."""
        self._room_2BARD: torch.Tensor | None = None

    def append(
        self, key_BAQD: torch.Tensor, value_BAQD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All (keys, values) so far, with these at the end."""
        new_2BAQD = torch.stack([key_BAQD, value_BAQD])
        start = self.length
        self.source = self.source or new_2BAQD.shape[3]
        self.length += new_2BAQD.shape[3]
        if self._room_2BARD is None:
            self._room_2BARD = new_2BAQD
        elif self.length > self._room_2BARD.shape[3]:
            more = new_2BAQD.new_empty((*new_2BAQD.shape[:3], self.length, new_2BAQD.shape[4]))
            self._room_2BARD = torch.cat([self._room_2BARD[:, :, :, :start], more], 3)
        self._room_2BARD[:, :, :, start : self.length] = new_2BAQD
        return self._room_2BARD[0, :, :, : self.length], self._room_2BARD[1, :, :, : self.length]

    def keep(self, row_N: torch.Tensor) -> None:
        """Drops all rows of the batch but these."""
        if self._room_2BARD is not None:
            self._room_2BARD = self._room_2BARD[:, row_N]


def run_block(
    block: Block,
    hidden_BQH: torch.Tensor,
    rotary: Rotary | None,
    mask_B1QK: torch.Tensor,
    kept: KeyValues | None,
    packing: Packing | None = None,
) -> torch.Tensor:
    """hidden_BQH after a block. `rotary` are the sines and cosines of the positions, where the
    family has them; `mask_B1QK` is an `additive_mask`. Without a cache the tokens see each other
    alone. With a `packing` the hidden vectors and the positions are packed, the mask is not."""
    attention = block.attention.self
    entered_BQH = block.attention.output.enter(hidden_BQH)
    query, key, value = attention.project(entered_BQH, rotary)
    if packing is not None:
        query = packing.spread_heads(query)
        key = packing.spread_heads(key)
        value = packing.spread_heads(value)
    source = 0
    if kept is not None:
        key, value = kept.append(key, value)
        source = kept.source
    if attention.performer is not None:
        context_BAQD = attention.performer(query, key, value, mask_B1QK)
    else:
        context_BAQD = attend(query, key, value, mask_B1QK, source, attention.weigh)
    context_BQH = context_BAQD.transpose(1, 2).flatten(2)
    if packing is not None:
        context_BQH = packing.pack(context_BQH)
    return block.finish(context_BQH, hidden_BQH)


def attend(
    query_BAQD: torch.Tensor,
    key_BAKD: torch.Tensor,
    value_BAKD: torch.Tensor,
    mask_B1QK: torch.Tensor,
    source: int,
    weigh: Weigh | None = None,
) -> torch.Tensor:
    """The values that each query sees, by softmax(query . key / sqrt(D)), or what `weigh` makes of
    the same scores: (B, A, Q, D).

    The first `source` of the K tokens are padded apart from those behind them. On a CPU the result
    does not depend on padding; see `nlpkit.layers.steady_products`. In float32 the fused kernel
    keeps that for a single query, up to 512 tokens, and is the faster one there.
    """
    queries = query_BAQD.shape[2]
    keeps_rows = queries == 1 and query_BAQD.dtype == torch.float32
    is_fused = keeps_rows or query_BAQD.device.type != "cpu" or is_traced()
    if is_fused and weigh is None:
        return nn.functional.scaled_dot_product_attention(
            query_BAQD, key_BAKD, value_BAKD, attn_mask=mask_B1QK.to(query_BAQD.dtype)
        )
    query_BAQD = query_BAQD * query_BAQD.shape[3] ** -0.5
    if spare(queries):
        query_BAQD = nn.functional.pad(query_BAQD, (0, 0, 0, spare(queries)))
    score_BAQK = (query_BAQD @ key_BAKD.transpose(2, 3))[:, :, :queries]
    if weigh is None:
        weight_BAQK = (score_BAQK + mask_B1QK).softmax(3, dtype=torch.float32)
    else:
        weight_BAQK = weigh(score_BAQK, mask_B1QK)
    return weighted_sums(weight_BAQK.to(value_BAKD.dtype), value_BAKD, source)
