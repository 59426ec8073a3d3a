"""START HERE for decoding: what a search asks of a constraint, and of a model.

A search keeps K beams for each of B rows. In every step the model scores all tokens, the constraint
looks only at those that are legal for each beam and gives the best of them for the row, and the
search picks the next beams:

    logits_BKV --constraint.step--> Candidates (B, C) --search--> beam_BK, token_BK
    beam_BK, token_BK --constraint.follow--> state
    beam_BK, token_BK --model.next---------> logits_BKV

The state is a tensor, so that reordering beams cannot break it. The first step has one beam a row
(K = 1). A logit of -inf bans its token: it is no candidate, and a beam of which all legal tokens
are banned has none.
Legend: B rows, K beams, V vocabulary, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch

Norm = Literal["full", "renorm"]
"""How a token is scored: its log-probability among all tokens (full), or among the legal ones of
its beam (renorm)."""


@dataclass(frozen=True)
class Candidates:
    """The best legal continuations of every row, best first.

    Where a row has fewer, the rest has score -inf, beam 0, token -1, state -1.
    """

    score_BC: torch.Tensor
    """Score of the beam plus that of the token, float32."""
    beam_BC: torch.Tensor
    """The beam that it continues, int64."""
    token_BC: torch.Tensor
    """Its token, int64; `eos_id` where it ends the sequence."""
    state_BC: torch.Tensor
    """For the constraint's own `follow`, int64: where the token leads. For an end it is where the
    sequence ended."""


class Constraint(Protocol):
    """Which sequences are legal: `TrieTable`, `LookAhead`, `PassageConstraint`,
    `EquationConstraint`, `Free` ..."""

    @property
    def eos_id(self) -> int:
        """The token that ends a sequence."""
        ...

    def start(self, rows: int) -> torch.Tensor:
        """The state before the first token: (rows, 1, ...)."""
        ...

    def step(
        self,
        logits_BKV: torch.Tensor,
        score_BK: torch.Tensor,
        state_BK: torch.Tensor,
        count: int,
        norm: Norm = "full",
        depth: int | None = None,
    ) -> Candidates:
        """The `count` best continuations of each row. A beam with score -inf is dead and has none.

        An end (`eos_id`) competes with the other tokens wherever the sequence may end. `depth` is
        how many tokens every live beam has, where the caller knows: nothing but shapes may depend
        on it.
        """
        ...

    def follow(
        self, state_BK: torch.Tensor, candidates: Candidates, chosen_BK: torch.Tensor
    ) -> torch.Tensor:
        """The state (B, K', ...) after candidates number `chosen_BK` of each row, of those that
        `step` gave."""
        ...


class Model(Protocol):
    """What scores tokens. It keeps its own cache of what was decoded."""

    def first(self) -> torch.Tensor:
        """logits_BV of the first token of every row."""
        ...

    def next(self, token_BK: torch.Tensor, beam_BK: torch.Tensor) -> torch.Tensor:
        """logits_BKV after `token_BK`, where new beam k of a row continues the row's old beam
        `beam_BK[k]`.

        A beam that is dead, or of which no logits are wanted any more, comes as token -1. What is
        given for it is not looked at, but must not be NaN.
        """
        ...
