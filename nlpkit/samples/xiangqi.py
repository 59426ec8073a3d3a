"""Made-up games of Chinese chess: legal moves drawn at random, captures and checks more often.

One game in five starts from a position of its own, which such a game has come to.

    {"moves": ["h2e2", "h9g7", ...], "result": "*"}
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from nlpkit.tasks.xiangqi.fen import OPENING, write_fen
from nlpkit.tasks.xiangqi.geometry import RED, Move, move_name
from nlpkit.tasks.xiangqi.position import Position

SHORTEST, LONGEST = 8, 60
"""Plies of a game that is not over before."""
CAPTURE = 6
"""How much likelier a move is that captures or attacks the general."""


def records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` games; the same seed gives the same records."""
    draw = random.Random(f"xiangqi {seed}")
    for _ in range(count):
        record: dict[str, Any] = {}
        start = OPENING
        if draw.random() < 0.2:
            start = _played(OPENING, draw.randint(20, 60), draw)[1]
        moves, last = _played(start, draw.randint(SHORTEST, LONGEST), draw)
        if not moves:
            start = OPENING
            moves, last = _played(start, SHORTEST, draw)
        if start != OPENING:
            record["fen"] = write_fen(start)
        record["moves"] = [move_name(move) for move in moves]
        yield {**record, "result": _result(last)}


def _played(position: Position, plies: int, draw: random.Random) -> tuple[list[Move], Position]:
    """So many moves from a position, fewer where the game is over, and the position after them."""
    moves: list[Move] = []
    while len(moves) < plies and (legal := position.legal_moves()):
        weights = [_weight(position, move) for move in legal]
        (move,) = draw.choices(legal, weights)
        moves.append(move)
        position = position.after(move)
    return moves, position


def _weight(position: Position, move: Move) -> int:
    is_forcing = position.board[move[1]] != 0 or position.after(move).is_attacked()
    return CAPTURE if is_forcing else 1


def _result(last: Position) -> str:
    if last.legal_moves():
        return "*"
    return "0-1" if last.side == RED else "1-0"
