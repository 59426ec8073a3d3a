"""A game as a record has it, and as the model reads it: in windows.

    {"moves": ["h2e2", "h9g7", ...], "fen": "4k4/... w", "result": "1-0"}

A window is some plies of the game in a row. It starts from the position before its first ply, which
the model is shown unless it is the opening position: so nothing before the window is needed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from nlpkit.errors import RecordError, shown
from nlpkit.tasks.xiangqi.fen import OPENING, read_fen
from nlpkit.tasks.xiangqi.geometry import MOVES, Move, move_name
from nlpkit.tasks.xiangqi.position import Position
from nlpkit.tasks.xiangqi.scoring import Gold, phase_of

SOURCE = 99
"""Most tokens of a window's position, [CLS] and [SEP] included: 32 pieces and the side to move."""


@dataclass(frozen=True)
class Window:
    """Moves in a row, the position before them, and the number of the first, counted from 0."""

    position: Position
    moves: tuple[Move, ...]
    first: int

    @property
    def last_position(self) -> Position:
        """The position after the moves."""
        position = self.position
        for move in self.moves:
            position = position.after(move)
        return position


@dataclass(frozen=True)
class Example:
    """A game: where it starts, its moves, and how it is cut to windows.

    The first window has `offset` plies, which may be none, the others `window`.
    """

    start: Position
    moves: tuple[Move, ...]
    window: int
    gold: Gold | None
    offset: int = 0

    def __len__(self) -> int:
        """Tokens of all windows, or a few more."""
        windows = 1 + (len(self.moves) + self.window - 1) // self.window
        return 4 * len(self.moves) + SOURCE * windows

    @property
    def is_from_opening(self) -> bool:
        """Whether it starts from the opening position."""
        return self.start == OPENING

    def windows(self) -> list[Window]:
        """The windows in order, none of them empty."""
        ends = [*range(self.offset, len(self.moves), self.window), len(self.moves)]
        windows = []
        first = 0
        position = self.start
        for end in ends:
            window = Window(position, self.moves[first:end], first)
            if window.moves:
                windows.append(window)
                position = window.last_position
                first = end
        return windows

    def before(self, ply: int) -> Window:
        """What is read to predict the move of number `ply`: the beginning of its window, which may
        be empty. Windows are those of no offset."""
        first = ply - ply % self.window
        position = self.start
        for move in self.moves[:first]:
            position = position.after(move)
        return Window(position, self.moves[first:ply], first)

    def phase(self, ply: int) -> str:
        """The phase of the game at a ply."""
        return phase_of(ply, self.is_from_opening)


def read_game(record: dict[str, Any], window: int, evaluated: int, seed: int) -> Example:
    """`moves`, and where the game does not start from the opening position `fen`.

    The gold has `evaluated` plies (0: all), drawn by `seed` and the game. Raises RecordError for
    what is no position or no move, an illegal move, and a start without legal moves.
    """
    start = _read_start(record)
    names = _read_names(record)
    moves = []
    position = start
    for number, name in enumerate(names, 1):
        move = MOVES.get(name)
        if move is None:
            raise RecordError(
                f'field "moves": move {number}: expected one such as "h2e2", got {shown(name)}'
            )
        if not position.is_legal(move):
            raise RecordError(
                f'field "moves": move {number} "{name}" is illegal: {position.why_illegal(move)}'
            )
        moves.append(move)
        position = position.after(move)
    if not moves:
        return Example(start, (), window, None)
    plies = _drawn(names, evaluated, seed)
    gold = Gold(
        ply=len(moves) - 1,
        phase=phase_of(len(moves) - 1, start == OPENING),
        moves=[],
        played=names,
        evaluated=plies,
        is_from_opening=start == OPENING,
    )
    return Example(start, tuple(moves), window, gold)


def _read_start(record: dict[str, Any]) -> Position:
    fen = record.get("fen")
    if fen is None or fen == "":
        return OPENING
    if not isinstance(fen, str):
        raise RecordError(f'field "fen": expected a string, got {shown(fen)}')
    position = read_fen(fen)
    if not position.legal_moves():
        raise RecordError(f'field "fen": {over(position)}: there is no legal move')
    return position


def over(position: Position) -> str:
    """What ends a game at a position without legal moves: `checkmate` or `stalemate`; both
    lose."""
    return "checkmate" if position.is_attacked() else "stalemate"


def _read_names(record: dict[str, Any]) -> list[str]:
    """The names of the moves; `H2-E2` is `h2e2`."""
    if "moves" not in record:
        raise RecordError('missing field "moves"')
    given = record["moves"]
    if not isinstance(given, list):
        raise RecordError(f'field "moves": expected a list of moves, got {shown(given)}')
    names = []
    for number, name in enumerate(given, 1):
        if not isinstance(name, str):
            raise RecordError(f'field "moves": move {number}: expected a string, got {shown(name)}')
        known = MOVES.get(name.replace("-", "").lower())
        names.append(name if known is None else move_name(known))
    return names


def _drawn(names: list[str], count: int, seed: int) -> list[int]:
    """The plies of a game to evaluate, in order."""
    if count == 0 or count >= len(names):
        return list(range(len(names)))
    draw = random.Random(f"{seed} {' '.join(names)}")
    return sorted(draw.sample(range(len(names)), count))
