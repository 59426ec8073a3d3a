"""A position of Chinese chess and its legal moves.

A move is legal if its piece can go so and its own general can then not be captured. Two generals
that face each other on an open file could capture each other. A side without legal moves has lost,
whether its general is attacked or not.

Pseudo-legal moves come from the tables of `geometry`. Only those that can matter to the general are
then made on the board and looked at: all where it is attacked now, else its own, and those from or
to a square near it (`geometry.NEAR`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nlpkit.tasks.xiangqi.geometry import (
    ADVISOR,
    ADVISOR_STEPS,
    CANNON,
    CHARIOT,
    ELEPHANT,
    ELEPHANT_JUMPS,
    GENERAL,
    GENERAL_STEPS,
    HORSE,
    HORSE_JUMPS,
    HORSES_ONTO,
    LINES,
    NEAR,
    PIECE_NAMES,
    RED,
    SOLDIER,
    SOLDIER_STEPS,
    SOLDIERS_ONTO,
    Move,
    square_name,
)

Board = list[int]
"""A piece for each of the 90 squares, 0 for none."""


@dataclass(frozen=True)
class Position:
    """A board and the side to move, 1 for red and -1 for black. Nobody changes the board."""

    board: Board
    side: int

    def legal_moves(self) -> list[Move]:
        """In the order of the squares that they leave."""
        board = self.board.copy()
        general = board.index(GENERAL * self.side)
        is_attacked = attacked(board, self.side)
        near = NEAR[general]
        legal = []
        for move in pseudo_legal(board, self.side):
            start, target = move
            matters = is_attacked or start == general or start in near or target in near
            if not matters or _leaves_safe(board, self.side, move):
                legal.append(move)
        return legal

    def is_legal(self, move: Move) -> bool:
        """Whether a move is among `legal_moves`, without looking for the others."""
        start = move[0]
        if self.board[start] * self.side <= 0:
            return False
        targets = moves_from(self.board, start, self.side)
        return move in targets and _leaves_safe(self.board.copy(), self.side, move)

    def is_attacked(self) -> bool:
        """Whether the general of the side to move is attacked."""
        return attacked(self.board, self.side)

    def after(self, move: Move) -> Position:
        """The position after a move, which is not checked."""
        board = self.board.copy()
        make(board, move)
        return Position(board, -self.side)

    def why_illegal(self, move: Move) -> str:
        """What keeps a move that is not legal from being so."""
        start, target = move
        piece = self.board[start]
        mover = "red" if self.side == RED else "black"
        if not piece:
            return f"there is no piece on {square_name(start)}"
        name = PIECE_NAMES[abs(piece)]
        if piece * self.side < 0:
            return f"the {name} on {square_name(start)} is not {mover}'s, who is to move"
        if self.board[target] * self.side > 0:
            return (
                f"{mover}'s own {PIECE_NAMES[abs(self.board[target])]} is on {square_name(target)}"
            )
        if move not in moves_from(self.board, start, self.side):
            return f"the {name} on {square_name(start)} cannot go to {square_name(target)}"
        return f"{mover}'s general could then be captured"


def make(board: Board, move: Move) -> None:
    """Makes a move on the board itself."""
    start, target = move
    board[target] = board[start]
    board[start] = 0


def _leaves_safe(board: Board, side: int, move: Move) -> bool:
    """Whether the side's general is not attacked after its move. The board is as before then."""
    start, target = move
    captured = board[target]
    make(board, move)
    is_safe = not attacked(board, side)
    board[start] = board[target]
    board[target] = captured
    return is_safe


def pseudo_legal(board: Board, side: int) -> Iterator[Move]:
    """The moves of a side, also those that leave its general to be captured."""
    for start, piece in enumerate(board):
        if piece * side > 0:
            yield from moves_from(board, start, side)


def moves_from(board: Board, start: int, side: int) -> list[Move]:
    """The pseudo-legal moves of the side's piece on a square."""
    kind = board[start] * side
    if kind == CHARIOT:
        targets = _chariot_targets(board, start, side)
    elif kind == CANNON:
        targets = _cannon_targets(board, start, side)
    elif kind == HORSE:
        targets = [target for leg, target in HORSE_JUMPS[start] if not board[leg]]
    elif kind == ELEPHANT:
        targets = [target for eye, target in ELEPHANT_JUMPS[side][start] if not board[eye]]
    elif kind == SOLDIER:
        targets = list(SOLDIER_STEPS[side][start])
    elif kind == ADVISOR:
        targets = list(ADVISOR_STEPS[side][start])
    else:
        targets = list(GENERAL_STEPS[side][start])
    return [(start, target) for target in targets if board[target] * side <= 0]


def _chariot_targets(board: Board, start: int, side: int) -> list[int]:
    """Along the lines up to the first piece, which may be captured."""
    targets = []
    for line in LINES[start]:
        for target in line:
            targets.append(target)
            if board[target]:
                break
    return targets


def _cannon_targets(board: Board, start: int, side: int) -> list[int]:
    """Along the lines up to the first piece, the screen; behind it the next piece may be
    captured."""
    targets = []
    for line in LINES[start]:
        has_screen = False
        for target in line:
            if not has_screen and board[target]:
                has_screen = True
            elif not has_screen:
                targets.append(target)
            elif board[target]:
                targets.append(target)
                break
    return targets


def attacked(board: Board, side: int) -> bool:
    """Whether the other side could capture the side's general, or faces it with its own."""
    general = board.index(GENERAL * side)
    for line in LINES[general]:
        if _attacked_along(board, line, side):
            return True
    horse = -side * HORSE
    for leg, start in HORSES_ONTO[general]:
        if board[start] == horse and not board[leg]:
            return True
    soldier = -side * SOLDIER
    return any(board[start] == soldier for start in SOLDIERS_ONTO[-side][general])


def _attacked_along(board: Board, line: tuple[int, ...], side: int) -> bool:
    """Whether the first piece of a line is the other's chariot or general, or the second its
    cannon."""
    has_screen = False
    for square in line:
        piece = board[square] * -side
        if piece == 0:
            continue
        if has_screen:
            return piece == CANNON
        if piece in (CHARIOT, GENERAL):
            return True
        has_screen = True
    return False


def perft(position: Position, depth: int) -> int:
    """How many sequences of `depth` legal moves there are."""
    moves = position.legal_moves()
    if depth == 1:
        return len(moves)
    return sum(perft(position.after(move), depth - 1) for move in moves)
