"""Positions as FEN: the ranks from 9 to 0, then the side to move.

    rnbakabnr/9/1c5c1/p1p1p1p1p/9/9/P1P1P1P1P/1C5C1/9/RNBAKABNR w

Upper case is red. K general, A advisor, B or E elephant, N or H horse, R chariot, C cannon,
P soldier; a digit counts empty squares. The side is w or r for red, b for black; without one it is
red's turn. What follows is left alone.
"""

from __future__ import annotations

from collections import Counter

from nlpkit.errors import RecordError, shown
from nlpkit.tasks.xiangqi.geometry import (
    ADVISOR,
    BLACK,
    CANNON,
    CHARIOT,
    ELEPHANT,
    GENERAL,
    HORSE,
    RED,
    SOLDIER,
    SQUARES,
    in_palace,
    square_name,
)
from nlpkit.tasks.xiangqi.position import Board, Position, attacked

LETTERS = " KABNRCP"
KINDS = {
    **{letter: kind for kind, letter in enumerate(LETTERS) if kind},
    "E": ELEPHANT,
    "H": HORSE,
}
SIDES = {"w": RED, "r": RED, "b": BLACK}
MOST = dict.fromkeys((ADVISOR, ELEPHANT, HORSE, CHARIOT, CANNON), 2) | {GENERAL: 1, SOLDIER: 5}
"""Kind -> most pieces of a side."""
START = "rnbakabnr/9/1c5c1/p1p1p1p1p/9/9/P1P1P1P1P/1C5C1/9/RNBAKABNR w"


def read_fen(fen: str) -> Position:
    """The position of a FEN. Raises RecordError where it is none, or none that a game can have."""
    board, *rest = fen.split() or [""]
    side = SIDES.get(rest[0].lower()) if rest else RED
    if side is None:
        raise RecordError(f'field "fen": expected the side to move, w or b, got {shown(rest[0])}')
    position = Position(_read_board(board), side)
    _check_pieces(position.board)
    if attacked(position.board, -side):
        raise RecordError('field "fen": the general of the side that has just moved is attacked')
    return position


def _read_board(text: str) -> Board:
    ranks = text.split("/")
    if len(ranks) != 10:
        raise RecordError(f'field "fen": expected 10 ranks with "/" between, got {len(ranks)}')
    board: Board = []
    for number, rank in enumerate(reversed(ranks)):
        squares: Board = []
        for letter in rank:
            kind = KINDS.get(letter.upper())
            if letter.isascii() and letter.isdigit():
                squares += [0] * int(letter)
            elif kind is None:
                raise RecordError(f'field "fen": rank {number}: no piece is called {shown(letter)}')
            else:
                squares.append(kind if letter.isupper() else -kind)
        if len(squares) != 9:
            raise RecordError(f'field "fen": rank {number}: expected 9 squares, got {len(squares)}')
        board += squares
    return board


def _check_pieces(board: Board) -> None:
    """Raises RecordError for pieces that are too many, and for a general that is missing or outside
    its palace. Others may stand where no game brings them, as in some compositions."""
    counts = Counter(board)
    for side in (RED, BLACK):
        name = "red" if side == RED else "black"
        if not counts[GENERAL * side]:
            raise RecordError(f'field "fen": {name} has no general')
        for kind, most in MOST.items():
            if counts[kind * side] > most:
                raise RecordError(
                    f'field "fen": {name} has {counts[kind * side]} of the piece '
                    f"{LETTERS[kind]}: expected at most {most}"
                )
        general = board.index(GENERAL * side)
        if not in_palace(general, side):
            raise RecordError(
                f'field "fen": {name}\'s general is on {square_name(general)}, outside its palace'
            )


def write_fen(position: Position) -> str:
    """The FEN of a position: its board and the side to move."""
    ranks = []
    for rank in range(SQUARES // 9 - 1, -1, -1):
        text = ""
        for piece in position.board[9 * rank : 9 * rank + 9]:
            letter = LETTERS[abs(piece)]
            if piece:
                text += letter if piece > 0 else letter.lower()
            elif text[-1:].isdigit():
                text = text[:-1] + str(int(text[-1]) + 1)
            else:
                text += "1"
        ranks.append(text)
    return f"{'/'.join(ranks)} {'w' if position.side == RED else 'b'}"


OPENING = read_fen(START)
