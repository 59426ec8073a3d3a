"""The legal moves as a constraint of a search: every beam carries its own board.

The state of a beam is a row of numbers: the board, the side to move, the coordinates that are
spelled of the move begun, and how many coordinates it has in all. The legal moves of its board,
spelled, are a small trie of depth four; the next coordinate is one that continues what is spelled.
With the fourth the move is made on the beam's board. A sequence ends after the wanted number of
plies, or earlier where there is no legal move.

    board 0 ... 89 | side 90 | spelled 91 ... 94 | coordinates so far 95

Legend: B rows, K beams, S symbols, N numbers of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from nlpkit.decoding.constraint import Candidates, Norm
from nlpkit.decoding.top_candidates import NEGATIVE_INFINITY, candidates, take, top_candidates
from nlpkit.tasks.xiangqi.geometry import SQUARES
from nlpkit.tasks.xiangqi.position import Position
from nlpkit.tasks.xiangqi.symbols import COUNT, END, spelled

SIDE = SQUARES
SPELLED = SIDE + 1
LENGTH = SPELLED + 4

Prefix = tuple[int, ...]


class LegalMoves:
    """`Constraint` over the 20 symbols: `plies` legal moves from a position for each row."""

    eos_id = END

    def __init__(self, positions: Sequence[Position], plies: int, device: Any = "cpu"):
        self.plies = plies
        rows = [[*p.board, p.side, 0, 0, 0, 0, 0] for p in positions]
        self._start_B1N = torch.tensor(rows, dtype=torch.int64)[:, None].to(device)

    def start(self, rows: int) -> torch.Tensor:
        """The positions: (rows, 1, N). Raises ValueError where they are another number."""
        if rows != len(self._start_B1N):
            raise ValueError(f"positions: expected {len(self._start_B1N)} rows, got {rows}")
        return self._start_B1N.clone()

    def step(
        self,
        logits_BKS: torch.Tensor,
        score_BK: torch.Tensor,
        state_BKN: torch.Tensor,
        count: int,
        norm: Norm = "full",
        depth: int | None = None,
    ) -> Candidates:
        """See `Constraint`. The state of an end is 0."""
        is_legal_BKS = self._is_legal(state_BKN, score_BK).to(logits_BKS.device)
        legal_BKS = logits_BKS.masked_fill(~is_legal_BKS, NEGATIVE_INFINITY)
        score_BC, beam_BC, symbol_BC = top_candidates(legal_BKS, logits_BKS, score_BK, count, norm)
        return candidates(score_BC, beam_BC, symbol_BC, torch.zeros_like(symbol_BC))

    def _is_legal(self, state_BKN: torch.Tensor, score_BK: torch.Tensor) -> torch.Tensor:
        """Which symbols may come next: bool (B, K, S), on the host."""
        legal_BKS = torch.zeros((*score_BK.shape, COUNT), dtype=torch.bool)
        alive = (score_BK > NEGATIVE_INFINITY).nonzero().tolist()
        states = state_BKN.tolist()
        for row, beam in alive:
            legal_BKS[row, beam, self._continuations(states[row][beam])] = True
        return legal_BKS

    def _continuations(self, state: list[int]) -> list[int]:
        if state[LENGTH] == 4 * self.plies:
            return [END]
        trie = spellings(tuple(state[:SQUARES]), state[SIDE])
        begun = state[SPELLED : SPELLED + state[LENGTH] % 4]
        return trie.get(tuple(begun), [END])

    def follow(
        self, state_BKN: torch.Tensor, candidates: Candidates, chosen_BK: torch.Tensor
    ) -> torch.Tensor:
        """See `Constraint`: the symbol is spelled, and the move made where it is whole."""
        symbol_BK1 = candidates.token_BC.gather(1, chosen_BK).clamp_min(0)[..., None]
        before_BKN = take(state_BKN, candidates.beam_BC.gather(1, chosen_BK))
        place_BK1 = before_BKN[..., LENGTH:] % 4
        spelled_BKN = before_BKN.scatter(2, SPELLED + place_BK1, symbol_BK1)
        spelled_BKN[..., LENGTH] += 1
        return torch.where(place_BK1 == 3, _moved(spelled_BKN), spelled_BKN)


@lru_cache(maxsize=4096)
def spellings(board: tuple[int, ...], side: int) -> dict[Prefix, list[int]]:
    """The trie of the legal moves: what is spelled -> the symbols that go on. Empty where there is
    no legal move."""
    trie: dict[Prefix, list[int]] = {}
    for move in Position(list(board), side).legal_moves():
        symbols = spelled(move)
        for length, symbol in enumerate(symbols):
            following = trie.setdefault(symbols[:length], [])
            if symbol not in following:
                following.append(symbol)
    return trie


def _moved(state_BKN: torch.Tensor) -> torch.Tensor:
    """The states after the move that each has spelled; where it has none, something without
    meaning."""
    file_BK2 = state_BKN[..., SPELLED : SPELLED + 4 : 2]
    rank_BK2 = state_BKN[..., SPELLED + 1 : SPELLED + 4 : 2] - 9
    square_BK2 = (file_BK2 + 9 * rank_BK2).clamp(0, SQUARES - 1)
    start_BK1, target_BK1 = square_BK2.split(1, 2)
    piece_BK1 = state_BKN.gather(2, start_BK1)
    moved_BKN = state_BKN.scatter(2, target_BK1, piece_BK1)
    moved_BKN = moved_BKN.scatter(2, start_BK1, 0)
    moved_BKN[..., SIDE] = -moved_BKN[..., SIDE]
    return moved_BKN
