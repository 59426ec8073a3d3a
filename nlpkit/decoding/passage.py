"""The output is a contiguous piece of the row's passage, or of one of its passages.

No automaton: the state of a beam is the set of places where the passage may go on after what was
written so far,

    active'[j + 1] = active[j] and passage[j] == token

with all places active at the start. A token that stands at several active places is one candidate:
each row lists every distinct token of its passages once. Passages of a row are joined by
separators, which no token equals, so that nothing goes on from one to the next; the one at place 0
is active only while nothing is written.

Source: https://kexue.fm/archives/7115 (the n-gram sets that this replaces).
Legend: B rows, K beams, N places of the joined passages, S distinct tokens and the end, V
vocabulary, C candidates.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import torch

from nlpkit.decoding.constraint import Candidates, Norm
from nlpkit.decoding.top_candidates import NEGATIVE_INFINITY, candidates, take, top_candidates

SEPARATOR = -2


class PassageConstraint:
    """`Constraint`: any piece of one of the passages.

    `passages` holds for every row its passages, each a sequence of token ids (also none, empty or
    equal ones). It may end after any token, and with `may_be_empty` before the first. Where the
    piece stands is in the end's state.
    """

    def __init__(
        self,
        passages: Sequence[Sequence[Sequence[int]]],
        eos_id: int,
        *,
        may_be_empty: bool = False,
        device: Any = "cpu",
    ):
        self.eos_id = eos_id
        self.may_be_empty = may_be_empty
        self._starts = []
        joined = []
        for row in passages:
            starts = [1]
            tokens = [SEPARATOR]
            for passage in row:
                tokens += [*passage, SEPARATOR]
                starts.append(len(tokens))
            self._starts.append(starts)
            joined.append(tokens)
        token_BN = _padded(joined)
        self._token_BN = token_BN.masked_fill(token_BN == eos_id, SEPARATOR).to(device)
        distinct, numbers = [], []
        for row_N in self._token_BN.cpu():
            tokens_S, number_N = row_N.unique(return_inverse=True)
            distinct.append([eos_id, *tokens_S[1:].tolist()])  # the separator is the least
            numbers.append(number_N)
        self._number_BN = torch.stack(numbers).to(device)
        self._token_BS = _padded(distinct).to(device)

    def start(self, rows: int) -> torch.Tensor:
        """Every place active: bool (rows, 1, N). Raises ValueError where `rows` is not the number
        of passage lists."""
        if rows != len(self._starts):
            raise ValueError(f"passages: expected {len(self._starts)} rows, got {rows}")
        return torch.ones_like(self._token_BN, dtype=torch.bool)[:, None]

    def step(
        self,
        logits_BKV: torch.Tensor,
        score_BK: torch.Tensor,
        state_BKN: torch.Tensor,
        count: int,
        norm: Norm = "full",
        depth: int | None = None,
    ) -> Candidates:
        """See `Constraint`. The state of an end is the place after the piece where it first
        stands."""
        beams = state_BKN.shape[1]
        number_BKN = self._number_BN[:, None].expand(-1, beams, -1)
        token_BKS = self._token_BS[:, None].expand(-1, beams, -1)
        active_BKS = torch.zeros_like(token_BKS, dtype=torch.int32)
        is_legal_BKS = active_BKS.scatter_add_(2, number_BKN, state_BKN.int()) > 0
        # number 0 is that of the separator, which no token equals: it serves the end
        is_legal_BKS[..., 0] = ~state_BKN[..., 0] | self.may_be_empty
        legal_BKS = logits_BKV.gather(2, token_BKS.clamp_min(0))
        legal_BKS = legal_BKS.masked_fill(~is_legal_BKS, NEGATIVE_INFINITY)
        score_BC, beam_BC, number_BC = top_candidates(legal_BKS, logits_BKV, score_BK, count, norm)
        token_BC = self._token_BS.gather(1, number_BC)
        place_BK = state_BKN.int().argmax(2)
        return candidates(score_BC, beam_BC, token_BC, place_BK.gather(1, beam_BC))

    def follow(
        self, state_BKN: torch.Tensor, candidates: Candidates, chosen_BK: torch.Tensor
    ) -> torch.Tensor:
        """See `Constraint`. A place stays active where the token stands, and moves on by one:
        (B, K', N)."""
        token_BK = candidates.token_BC.gather(1, chosen_BK)
        before_BKN = take(state_BKN, candidates.beam_BC.gather(1, chosen_BK))
        hit_BKN = before_BKN & (self._token_BN[:, None] == token_BK[..., None])
        return torch.nn.functional.pad(hit_BKN[..., :-1], (1, 0))

    def locate(self, row: int, place: int, length: int) -> tuple[int, int, int] | None:
        """(passage, start, end) in tokens, half-open, of a piece of `length` tokens whose end has
        the state `place`.

        It is the first of the places where the piece stands, None for an empty piece.
        """
        if length == 0:
            return None
        passage = bisect_right(self._starts[row], place - length) - 1
        start = place - length - self._starts[row][passage]
        return passage, start, start + length


def _padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """int64 (rows, longest row), filled with SEPARATOR."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, SEPARATOR)
