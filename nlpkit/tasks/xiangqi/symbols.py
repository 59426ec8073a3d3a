"""Moves and positions as tokens of an encoder's vocabulary.

A move is four tokens, its coordinates: `h2e2` is h, 2, e, 2. They are 19 symbols, files 0 to 8 and
ranks 9 to 18; with the end, number 19, they are all that the model predicts.

A position is a token for each piece and two for its square, from rank 9 to 0, then the side to
move: 車 a 9 馬 b 9 ... 红. Pieces are the characters of a real set, in which the two sides differ.
"""

from __future__ import annotations

from collections.abc import Iterable

from nlpkit.errors import SettingsError
from nlpkit.tasks.xiangqi.fen import OPENING
from nlpkit.tasks.xiangqi.geometry import FILES, RANKS, RED, SQUARES, Move
from nlpkit.tasks.xiangqi.position import Position
from nlpkit.text.tokenizer import Tokenizer

END = 19
"""The number of the end among the symbols."""
COUNT = 20
RED_PIECES = " 帅仕相马车炮兵"
BLACK_PIECES = " 将士象馬車砲卒"
SIDE_TO_MOVE = {RED: "红", -RED: "黑"}


class Symbols:
    """The symbols as tokens of a vocabulary. Raises SettingsError where it lacks one."""

    def __init__(self, tokenizer: Tokenizer):
        vocabulary = tokenizer.backend.get_vocab()
        signs = FILES + RANKS + RED_PIECES[1:] + BLACK_PIECES[1:] + "".join(SIDE_TO_MOVE.values())
        missing = [sign for sign in signs if sign not in vocabulary]
        if missing:
            raise SettingsError(
                f"xiangqi: the encoder's vocabulary has no {' '.join(missing)}",
                hint="--encoder tiny",
            )
        self.token_ids = [vocabulary[sign] for sign in FILES + RANKS] + [tokenizer.sep_id]
        """The tokens of the 20 symbols."""
        self._pieces = {RED * kind: vocabulary[RED_PIECES[kind]] for kind in range(1, 8)}
        self._pieces |= {-RED * kind: vocabulary[BLACK_PIECES[kind]] for kind in range(1, 8)}
        self._sides = {side: vocabulary[sign] for side, sign in SIDE_TO_MOVE.items()}

    def source(self, position: Position) -> list[int]:
        """The tokens of a position; none of the opening position."""
        if position == OPENING:
            return []
        tokens = []
        for rank in range(SQUARES // 9 - 1, -1, -1):
            for square in range(9 * rank, 9 * rank + 9):
                if piece := position.board[square]:
                    tokens.append(self._pieces[piece])
                    tokens += [self.token_ids[symbol] for symbol in spelled_square(square)]
        return [*tokens, self._sides[position.side]]

    def target(self, moves: Iterable[Move]) -> list[int]:
        """The tokens of some moves, four each."""
        return [self.token_ids[symbol] for move in moves for symbol in spelled(move)]


def spelled_square(square: int) -> tuple[int, int]:
    """The symbols of a square."""
    return square % 9, 9 + square // 9


def spelled(move: Move) -> tuple[int, int, int, int]:
    """The four symbols of a move."""
    return *spelled_square(move[0]), *spelled_square(move[1])


def move_of(symbols: list[int]) -> Move | None:
    """The move that four symbols spell; None where they spell none."""
    is_file = [symbol < 9 for symbol in symbols]
    if is_file != [True, False, True, False] or END in symbols:
        return None
    start_file, start_rank, file, rank = symbols
    return start_file + 9 * (start_rank - 9), file + 9 * (rank - 9)
