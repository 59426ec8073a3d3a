"""Arithmetic: the output is a complete infix expression with balanced parentheses.

    expression = ["-"] operand { operator operand }
    operand    = ( number | whole | "(" expression ")" ) ["%"]
    number     = ( "0" | nonzero { digit } ) [ "." digit { digit } ]
    operator   = "+" | "-" | "*" | "/" | "^" | "**"
    whole      = a token that is a number by itself, such as one for "the second number"

So a sign stands only at the beginning or after "(", nothing is multiplied by standing side by side,
there is no leading zero and no point without digits on both sides. The symbols are single
characters of which any may be left out, so that no "%" means no percent. Division by zero and huge
powers are left to whoever computes the value.

A state is what was read last (a row of GRAMMAR), how many parentheses are open and how many tokens
are left, in the bits of one integer. With `max_length` a token is legal only where the tokens left
after it suffice to finish:

    open' + (1 where an operand is missing) <= left'

so that no beam runs into a dead end, and still every expression of at most that length can be
written.

Source: the equations of https://kexue.fm/archives/7809 (Ape210K), written out here.
Legend: B rows, K beams, G rows of the grammar, A symbols and whole numbers, S symbols (these and
the end), V vocabulary, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nlpkit.decoding.constraint import Candidates, Norm
from nlpkit.decoding.top_candidates import NEGATIVE_INFINITY, candidates, top_candidates
from nlpkit.errors import SettingsError

_WHOLE = "n"
_OPERAND = {"0": "zero", "123456789": "integer", "(": "begin", _WHOLE: "closed"}
_AFTER = {"+-/^": "operator", "*": "star", ")": "closed"}
_DIGITS = "0123456789"

GRAMMAR = {
    "begin": {**_OPERAND, "-": "operator"},
    "operator": _OPERAND,
    "star": {**_OPERAND, "*": "operator"},
    "zero": {**_AFTER, ".": "point", "%": "percent"},
    "integer": {**_AFTER, _DIGITS: "integer", ".": "point", "%": "percent"},
    "point": {_DIGITS: "fraction"},
    "fraction": {**_AFTER, _DIGITS: "fraction", "%": "percent"},
    "closed": {**_AFTER, "%": "percent"},
    "percent": _AFTER,
}
"""What was read last -> characters that may follow -> what was read last then."""

_SYMBOLS = _DIGITS + ".+-*/^()%"
_ROWS = list(GRAMMAR)
_OPEN_BIT, _LEFT_BIT = (
    4,
    20,
)  # bits 0-3 what was read last, 4-19 open parentheses, from 20 tokens left
_NO_LIMIT = 1 << 40


class EquationConstraint:
    """`Constraint`: expressions of the grammar above.

    `symbols` gives the token id of every character that may be used; "**" is legal with "*" unless
    `double_star` is off. `operands` are for each row the ids of its whole numbers, some of all the
    `wholes` that there are (None: those of the rows). Where `wholes` are given, sums over what is
    legal have as many terms in every batch, so that scores do not depend on it by a bit.
    `max_length` is that of the search, in tokens without the end, or None. Raises SettingsError for
    an unknown symbol, and where digits or one of the parentheses is missing.
    """

    def __init__(
        self,
        symbols: Mapping[str, int],
        eos_id: int,
        *,
        operands: Sequence[Sequence[int]] = (),
        wholes: Sequence[int] | None = None,
        max_length: int | None = None,
        double_star: bool = True,
        device: Any = "cpu",
    ):
        self.eos_id = eos_id
        self._left = _NO_LIMIT if max_length is None else max_length
        if unknown := sorted(set(symbols) - set(_SYMBOLS)):
            raise SettingsError(
                f"equation: unknown symbols: expected some of {_SYMBOLS}, got {''.join(unknown)}"
            )
        if not set(_DIGITS) & set(symbols) or ("(" in symbols) != (")" in symbols):
            raise SettingsError("equation: expected digits, and both parentheses or none")
        grammar = GRAMMAR if double_star else {**GRAMMAR, "star": _OPERAND}
        distinct = sorted(set[int]().union(*operands)) if wholes is None else list(wholes)
        kinds = [*symbols, *(_WHOLE for _ in distinct)]
        tokens = [*symbols.values(), *distinct]
        next_GA = []
        for row in _ROWS:
            next_GA.append([_next(grammar[row], kind) for kind in kinds])
        self._next_GA = torch.tensor(next_GA, device=device)
        self._opens_A = torch.tensor(
            [(kind == "(") - (kind == ")") for kind in kinds], device=device
        )
        self._lacks_G = torch.tensor([int(")" not in grammar[row]) for row in _ROWS], device=device)
        self._token_S = torch.tensor([*tokens, eos_id], device=device)
        allowed = []
        for own in map(set, operands):
            allowed.append([True] * len(symbols) + [token in own for token in distinct])
        self._allowed_BA = torch.tensor(allowed or [[True] * len(symbols)], device=device)

    def start(self, rows: int) -> torch.Tensor:
        """Nothing read: int64 (rows, 1). Raises ValueError where `operands` are of another number
        of rows."""
        if len(self._allowed_BA) not in (1, rows):
            raise ValueError(f"operands: expected {len(self._allowed_BA)} rows, got {rows}")
        return torch.full((rows, 1), self._left << _LEFT_BIT, device=self._token_S.device)

    def step(
        self,
        logits_BKV: torch.Tensor,
        score_BK: torch.Tensor,
        state_BK: torch.Tensor,
        count: int,
        norm: Norm = "full",
        depth: int | None = None,
    ) -> Candidates:
        """See `Constraint`. The state of an end is that of the beam that it ends."""
        state_BKS, legal_BKS = self._successors(state_BK.clamp_min(0))
        legal_logits_BKS = logits_BKV[..., self._token_S].masked_fill(~legal_BKS, NEGATIVE_INFINITY)
        score_BC, beam_BC, place_BC = top_candidates(
            legal_logits_BKS, logits_BKV, score_BK, count, norm
        )
        state_BC = state_BKS.flatten(1).gather(1, beam_BC * len(self._token_S) + place_BC)
        return candidates(score_BC, beam_BC, self._token_S[place_BC], state_BC)

    def follow(
        self, state_BK: torch.Tensor, candidates: Candidates, chosen_BK: torch.Tensor
    ) -> torch.Tensor:
        """See `Constraint`. Grammar row, open brackets and tokens left in one number: (B, K')."""
        return candidates.state_BC.gather(1, chosen_BK)

    def _successors(self, state_BK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For every symbol the state it leads to, for the end the state itself, and whether it is
        legal."""
        row_BK = state_BK & ((1 << _OPEN_BIT) - 1)
        left_BK = state_BK >> _LEFT_BIT
        open_BK = (state_BK >> _OPEN_BIT) & ((1 << (_LEFT_BIT - _OPEN_BIT)) - 1)
        next_BKA = self._next_GA[row_BK]
        open_BKA = open_BK[..., None] + self._opens_A
        left_BKA = (left_BK - 1)[..., None].expand_as(next_BKA)
        needs_BKA = open_BKA + self._lacks_G[next_BKA.clamp_min(0)]
        legal_BKA = (
            (next_BKA >= 0) & (open_BKA >= 0) & (needs_BKA <= left_BKA) & self._allowed_BA[:, None]
        )
        state_BKA = next_BKA | (open_BKA << _OPEN_BIT) | (left_BKA << _LEFT_BIT)
        may_end_BK = (self._lacks_G[row_BK] + open_BK) == 0
        return (
            torch.cat([state_BKA, state_BK[..., None]], 2),
            torch.cat([legal_BKA, may_end_BK[..., None]], 2),
        )


def _next(row: Mapping[str, str], symbol: str) -> int:
    """Number of the grammar row after `symbol`, -1 where it may not follow."""
    return next(
        (_ROWS.index(after) for characters, after in row.items() if symbol in characters), -1
    )
