"""No n tokens twice: a model that bans every token which would repeat an n-gram of its sequence.

Source: Paulus et al. 2017, A Deep Reinforced Model for Abstractive Summarization,
arxiv.org/abs/1705.04304, 2.5.
Legend: B rows, K beams, T tokens so far, W n-grams so far, N the n of the n-grams, V vocabulary.
"""

from __future__ import annotations

import torch

from nlpkit.decoding.constraint import Model
from nlpkit.decoding.top_candidates import NEGATIVE_INFINITY, take
from nlpkit.errors import SettingsError


class NoRepeat:
    """`Model` around a model; `size` is n, with 1 no token comes twice. Scores are then among the
    tokens not banned.

    Under a constraint a sequence can run into a dead end. Raises SettingsError for a size below 1.
    """

    def __init__(self, model: Model, size: int):
        if size < 1:
            raise SettingsError(f"no repeat: expected a size of at least 1, got {size}")
        self.model = model
        self.size = size
        self.history_BKT: torch.Tensor | None = None

    def first(self) -> torch.Tensor:
        """logits_BV, as they are."""
        self.history_BKT = None
        return self.model.first()

    def next(self, token_BK: torch.Tensor, beam_BK: torch.Tensor) -> torch.Tensor:
        """logits_BKV with -inf at the tokens that would complete an n-gram once more."""
        token_BK1 = token_BK[..., None]
        past_BKT = (
            token_BK1[..., :0] if self.history_BKT is None else take(self.history_BKT, beam_BK)
        )
        self.history_BKT = torch.cat([past_BKT, token_BK1], 2)
        logits_BKV = self.model.next(token_BK, beam_BK)
        length = self.history_BKT.shape[2]
        if length < self.size:
            return logits_BKV
        grams_BKWN = self.history_BKT.unfold(2, self.size, 1)
        begun_BKN = self.history_BKT[..., length - self.size + 1 :]
        repeats_BKW = (grams_BKWN[..., :-1] == begun_BKN[..., None, :]).all(-1)
        penalty_BKW = torch.zeros_like(repeats_BKW, dtype=logits_BKV.dtype).masked_fill(
            repeats_BKW, NEGATIVE_INFINITY
        )
        return logits_BKV.scatter_add(
            2, grams_BKWN[..., -1].clamp_min(0), penalty_BKW
        )  # -1 in dead beams
