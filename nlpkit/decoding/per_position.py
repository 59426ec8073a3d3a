"""Constraints that look at nothing but the position: banned tokens, a least length, fixed lines of
a poem.

Legend: B rows, K beams, T positions, V vocabulary, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from nlpkit.decoding.constraint import Candidates, Norm
from nlpkit.decoding.top_candidates import NEGATIVE_INFINITY, candidates, top_candidates


class PerPosition:
    """`Constraint`: token v may be number t (from 0) of the sequence where `legal[t, v]`.

    `legal` is bool (T, V), or (B, T, V) for rows of their own; its column `eos_id` says whether a
    sequence of t tokens may end. The last position holds for all later ones too.
    """

    def __init__(self, legal: torch.Tensor, eos_id: int):
        self.eos_id = eos_id
        self._legal_BTV = legal if legal.dim() == 3 else legal[None]

    def start(self, rows: int) -> torch.Tensor:
        """Position 0: int64 (rows, 1). Raises ValueError where `legal` is of another number of
        rows."""
        if len(self._legal_BTV) not in (1, rows):
            raise ValueError(
                f"legal tokens per position: expected {len(self._legal_BTV)} rows, got {rows}"
            )
        return torch.zeros((rows, 1), dtype=torch.int64, device=self._legal_BTV.device)

    def step(
        self,
        logits_BKV: torch.Tensor,
        score_BK: torch.Tensor,
        state_BK: torch.Tensor,
        count: int,
        norm: Norm = "full",
        depth: int | None = None,
    ) -> Candidates:
        """See `Constraint`. The state of an end is the length of the sequence."""
        legal_BKV = logits_BKV.masked_fill(~self._legal(state_BK), NEGATIVE_INFINITY)
        score_BC, beam_BC, token_BC = top_candidates(legal_BKV, logits_BKV, score_BK, count, norm)
        position_BC = state_BK.gather(1, beam_BC) + (token_BC != self.eos_id)
        return candidates(score_BC, beam_BC, token_BC, position_BC)

    def _legal(self, state_BK: torch.Tensor) -> torch.Tensor:
        """What is legal at the positions `state_BK`: bool (B, K, V)."""
        row_B1 = torch.arange(len(self._legal_BTV), device=state_BK.device)[:, None]
        return self._legal_BTV[row_B1, state_BK.clamp(0, self._legal_BTV.shape[1] - 1)]

    def follow(
        self, state_BK: torch.Tensor, candidates: Candidates, chosen_BK: torch.Tensor
    ) -> torch.Tensor:
        """See `Constraint`. The positions: (B, K')."""
        return candidates.state_BC.gather(1, chosen_BK)


class Patterned(PerPosition):
    """`PerPosition` where positions are of few kinds, such as a character and a comma: `legal` is
    bool (kinds, V).

    `kind_BT` has the kind of every position of each row; row b begins at position `start_B`.
    """

    def __init__(
        self, legal: torch.Tensor, eos_id: int, kind_BT: torch.Tensor, start_B: torch.Tensor
    ):
        super().__init__(legal, eos_id)
        self._kind_BT = kind_BT
        self._start_B = start_B

    def start(self, rows: int) -> torch.Tensor:
        """The position of the first token: int64 (rows, 1). Raises ValueError for another number of
        rows."""
        if len(self._start_B) != rows:
            raise ValueError(f"kinds of positions: expected {len(self._start_B)} rows, got {rows}")
        return self._start_B[:, None].clone()

    def _legal(self, state_BK: torch.Tensor) -> torch.Tensor:
        return self._legal_BTV[
            0, self._kind_BT.gather(1, state_BK.clamp(0, self._kind_BT.shape[1] - 1))
        ]


class Free(PerPosition):
    """`Constraint`: every token but the banned ones, and an end after at least `min_length`
    tokens."""

    def __init__(
        self,
        vocabulary_size: int,
        eos_id: int,
        *,
        banned: Iterable[int] = (),
        min_length: int = 0,
        device: Any = "cpu",
    ):
        legal_TV = torch.ones((min_length + 1, vocabulary_size), dtype=torch.bool)
        legal_TV[:, list(banned)] = False
        legal_TV[:, eos_id] = torch.arange(min_length + 1) == min_length
        super().__init__(legal_TV.to(device), eos_id)
