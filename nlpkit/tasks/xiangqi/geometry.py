"""The board of Chinese chess and the ways of its pieces, as tables of squares.

A square is 9 * rank + file: files a to i are 0 to 8 from red's left, ranks 0 to 9 count from red's
side. A move is (from, to); its name is that of ICCS, such as `h2e2`. A piece is a number, positive
for red and negative for black; a side is 1 for red and -1 for black.

Source: the rules of the World Xiangqi Federation, without those on repetition.
"""

from __future__ import annotations

FILES = "abcdefghi"
RANKS = "0123456789"
SQUARES = 90
RED = 1
BLACK = -1
GENERAL, ADVISOR, ELEPHANT, HORSE, CHARIOT, CANNON, SOLDIER = range(1, 8)
PIECE_NAMES = ["", "general", "advisor", "elephant", "horse", "chariot", "cannon", "soldier"]

Move = tuple[int, int]
Squares = tuple[int, ...]

ORTHOGONAL = [(0, 1), (0, -1), (1, 0), (-1, 0)]
DIAGONAL = [(1, 1), (1, -1), (-1, 1), (-1, -1)]


def square_at(file: int, rank: int) -> int | None:
    """The square of a file and a rank; None off the board."""
    return 9 * rank + file if 0 <= file < 9 and 0 <= rank < 10 else None


def square_name(square: int) -> str:
    """`h2` for the square on file h and rank 2."""
    return FILES[square % 9] + RANKS[square // 9]


def move_name(move: Move) -> str:
    """`h2e2` for the move from h2 to e2."""
    return square_name(move[0]) + square_name(move[1])


def stepped(square: int, step: tuple[int, int]) -> int | None:
    """The square so many (files, ranks) on; None off the board."""
    return square_at(square % 9 + step[0], square // 9 + step[1])


def in_palace(square: int, side: int) -> bool:
    """Whether a square is one of the nine of a side's palace."""
    ranks = range(3) if side == RED else range(7, 10)
    return square % 9 in range(3, 6) and square // 9 in ranks


def is_home(square: int, side: int) -> bool:
    """Whether a square lies on the side's own half, before the river."""
    return (square // 9 < 5) == (side == RED)


def _line(square: int, step: tuple[int, int]) -> Squares:
    """The squares from the next one to the edge of the board."""
    line = []
    following = stepped(square, step)
    while following is not None:
        line.append(following)
        following = stepped(following, step)
    return tuple(line)


def _palace_steps(square: int, side: int, steps: list[tuple[int, int]]) -> Squares:
    targets = []
    for step in steps:
        target = stepped(square, step)
        if target is not None and in_palace(target, side):
            targets.append(target)
    return tuple(targets)


def _horse_jumps(square: int) -> tuple[Move, ...]:
    """(leg, target): a piece on the leg, the square orthogonally beside the horse, hobbles it."""
    jumps = []
    for file, rank in ORTHOGONAL:
        leg = stepped(square, (file, rank))
        for aside in (1, -1):
            target = stepped(square, (2 * file + aside * rank, 2 * rank + aside * file))
            if leg is not None and target is not None:
                jumps.append((leg, target))
    return tuple(jumps)


def _elephant_jumps(square: int, side: int) -> tuple[Move, ...]:
    """(eye, target): a piece on the eye, the square between, blocks the elephant."""
    jumps = []
    for file, rank in DIAGONAL:
        eye = stepped(square, (file, rank))
        target = stepped(square, (2 * file, 2 * rank))
        if eye is not None and target is not None and is_home(target, side):
            jumps.append((eye, target))
    return tuple(jumps)


def _soldier_steps(square: int, side: int) -> Squares:
    """Forward, and behind the river also sideways."""
    steps = [(0, side)]
    if not is_home(square, side):
        steps += [(1, 0), (-1, 0)]
    targets = [stepped(square, step) for step in steps]
    return tuple(target for target in targets if target is not None)


def _near(square: int) -> frozenset[int]:
    """The squares from which a piece that comes or goes can open a way to the general on `square`:
    those of its lines, and the legs of horses, which lie diagonally beside it."""
    near = {target for line in LINES[square] for target in line}
    for step in DIAGONAL:
        leg = stepped(square, step)
        if leg is not None:
            near.add(leg)
    return frozenset(near)


ALL = range(SQUARES)
SIDES = (RED, BLACK)
LINES = [[_line(square, step) for step in ORTHOGONAL] for square in ALL]
"""Square -> four lines of squares, from the nearest to the edge of the board."""
GENERAL_STEPS = {s: [_palace_steps(square, s, ORTHOGONAL) for square in ALL] for s in SIDES}
ADVISOR_STEPS = {s: [_palace_steps(square, s, DIAGONAL) for square in ALL] for s in SIDES}
ELEPHANT_JUMPS = {s: [_elephant_jumps(square, s) for square in ALL] for s in SIDES}
SOLDIER_STEPS = {s: [_soldier_steps(square, s) for square in ALL] for s in SIDES}
HORSE_JUMPS = [_horse_jumps(square) for square in ALL]
NEAR = [_near(square) for square in ALL]


def _jumps_onto(square: int) -> tuple[Move, ...]:
    """(leg, from) of every horse's jump that ends on the square."""
    jumps = []
    for start in ALL:
        jumps += [(leg, start) for leg, target in HORSE_JUMPS[start] if target == square]
    return tuple(jumps)


def _steps_onto(square: int, side: int) -> Squares:
    """From where a soldier of the side steps onto the square."""
    return tuple(start for start in ALL if square in SOLDIER_STEPS[side][start])


HORSES_ONTO = [_jumps_onto(square) for square in ALL]
SOLDIERS_ONTO = {side: [_steps_onto(square, side) for square in ALL] for side in SIDES}
MOVES = {
    move_name((start, target)): (start, target)
    for start in ALL
    for target in ALL
    if start != target
}
"""Every name that a move can have -> the move."""
