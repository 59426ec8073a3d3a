"""The targets of a prefix-LM (`nlpkit.layers.prefix_lm`) in steps: the source is read once, and each
step takes one token per beam (`nlpkit.encoders.cache`).

Legend: B batch, S tokens of the source, K beams, R rows still written, U tokens of the beams so
far, T tokens seen, V vocabulary, H hidden, E word vectors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nlpkit.decoding.top_candidates import take
from nlpkit.encoders.base import attention_mask
from nlpkit.errors import SettingsError
from nlpkit.layers.packing import Packing
from nlpkit.text.tokenizer import TokenBatch

FULL = 0.9
"""Share of living beams from which on dead ones are computed as well."""


class CachedDecoder:
    """`Model` of nlpkit.decoding: the targets of a batch of sources, for an encoder in evaluation
    mode. `words_BSE` is read in place of the sources' own word vectors.

    With an `alphabet_V` of token ids nothing else can be written. Then a token is its number there,
    in all that is given and taken, and V counts the alphabet. So a search that scores tokens among
    the legal ones ("renorm") need not have the logits of a whole vocabulary.
    """

    packs = True
    """Whether a beam's logits are made of its hidden vector alone, so that dead beams can be left
    out also beside living ones."""

    def __init__(
        self,
        encoder: Any,
        sources: TokenBatch,
        words_BSE: torch.Tensor | None = None,
        alphabet_V: torch.Tensor | None = None,
    ):
        self.encoder = encoder
        self.sources = sources.widened(encoder.max_length)
        self.alphabet_V = alphabet_V
        self.words_BSE = words_BSE
        if words_BSE is not None:
            more = self.sources.token_ids_BT.shape[1] - words_BSE.shape[1]
            self.words_BSE = nn.functional.pad(words_BSE, (0, 0, 0, more))
        self.longest = int(sources.mask_BT.sum(1).max())

    @torch.no_grad()
    def first(self) -> torch.Tensor:
        """logits_BV of the first token."""
        ids_BS, mask_BS, segment_BS = (
            self.sources.token_ids_BT,
            self.sources.mask_BT,
            self.sources.segment_ids_BT,
        )
        self.cache = self.encoder.new_cache()
        self.row_R = torch.arange(len(ids_BS), device=ids_BS.device)
        self.mask_RS = mask_BS
        self.length_R = mask_BS.sum(1)
        self.steps = 0
        self.seen_RKU = mask_BS.new_zeros((len(ids_BS), 1, 0))
        position_S = torch.arange(ids_BS.shape[1], device=ids_BS.device)
        # what stands in segment 1 already, the beginning of the target, is seen from itself on
        visible_BSS = attention_mask(mask_BS, segment_BS, "prefix")
        hidden_BSH = self.encoder.extend(
            ids_BS,
            segment_BS,
            position_S.expand_as(ids_BS),
            visible_BSS,
            self.cache,
            self.words_BSE,
        )
        self.keep_source(hidden_BSH)
        logits_BV = self.logits(take(hidden_BSH, self.length_R[:, None] - 1))[:, 0]
        self.nothing_V = torch.zeros_like(logits_BV[0])
        return logits_BV

    def keep_source(self, hidden_BSH: torch.Tensor) -> None:
        """For a decoder that looks at the vectors of the source again."""

    def logits(self, hidden_RKH: torch.Tensor) -> torch.Tensor:
        """Scores of the tokens after each beam: (R, K, V)."""
        return self.encoder.token_logits(hidden_RKH, self.alphabet_V)

    @torch.no_grad()
    def next(self, token_BK: torch.Tensor, beam_BK: torch.Tensor) -> torch.Tensor:
        """logits_BKV after `token_BK`. Raises SettingsError where the encoder has no more
        positions."""
        if self.longest + self.steps >= self.encoder.max_length:
            limit = f"expected at most {self.encoder.max_length} tokens of source and target"
            raise SettingsError(f"decoding: {limit}, got {self.longest} and more than {self.steps}")
        if token_BK.device.type == "cpu":  # elsewhere the host would have to wait for the answer
            self._drop_dead(token_BK)
        logits_BKV = self.nothing_V.expand(*token_BK.shape, -1)
        if not len(self.row_R):
            return logits_BKV
        logits_RKV = self._extend(token_BK[self.row_R], beam_BK[self.row_R])
        if len(logits_RKV) == len(token_BK):
            return logits_RKV
        return logits_BKV.index_copy(0, self.row_R, logits_RKV)

    def _extend(self, token_RK: torch.Tensor, beam_RK: torch.Tensor) -> torch.Tensor:
        packing = self._packing(token_RK)
        token_RK = token_RK.clamp_min(0)
        if self.alphabet_V is not None:
            token_RK = self.alphabet_V[token_RK]
        itself_KK = torch.eye(token_RK.shape[1], dtype=torch.bool, device=token_RK.device)
        self.seen_RKU = torch.cat(
            [take(self.seen_RKU, beam_RK), itself_KK.expand(len(token_RK), -1, -1)], 2
        )
        visible_RKT = torch.cat(
            [self.mask_RS[:, None].expand(-1, token_RK.shape[1], -1), self.seen_RKU], 2
        )
        position_RK = (self.length_R + self.steps)[:, None].expand_as(token_RK)
        self.steps += 1
        hidden_RKH = self.encoder.extend(
            token_RK,
            torch.ones_like(token_RK),
            position_RK,
            visible_RKT,
            self.cache,
            packing=packing,
        )
        logits_RKV = self.logits(hidden_RKH)
        return logits_RKV if packing is None else packing.spread(logits_RKV)

    def _packing(self, token_RK: torch.Tensor) -> Packing | None:
        """Where enough beams are dead beside living ones for it to pay; a beam's own numbers are
        the same with it and without."""
        if not self.packs or token_RK.device.type != "cpu":
            return None
        is_alive_RK = token_RK >= 0
        if int(is_alive_RK.sum()) > FULL * token_RK.numel():
            return None
        return Packing(is_alive_RK)

    def keep(self, row_N: torch.Tensor) -> None:
        """Goes on with these rows alone, after `first`: their numbers, or a mask. They are counted
        anew."""
        self._keep(row_N)
        self.row_R = torch.arange(len(self.row_R), device=self.row_R.device)

    def _drop_dead(self, token_BK: torch.Tensor) -> None:
        """Leaves out the rows without a living beam from now on, so that a batch costs what it
        still writes."""
        alive_R = (token_BK >= 0).any(1)[self.row_R]
        if not alive_R.all():
            self._keep(alive_R)

    def _keep(self, row_N: torch.Tensor) -> None:
        for kept in self.cache:
            kept.keep(row_N)
        self.row_R = self.row_R[row_N]
        self.seen_RKU = self.seen_RKU[row_N]
        self.mask_RS = self.mask_RS[row_N]
        self.length_R = self.length_R[row_N]
