"""The moves of every piece, against counts that are known and against a second generator, which
knows only how pieces go and that a general may not be captured."""

import random

import pytest

from nlpkit.errors import RecordError
from nlpkit.tasks.xiangqi.fen import OPENING, START, read_fen, write_fen
from nlpkit.tasks.xiangqi.geometry import MOVES, move_name
from nlpkit.tasks.xiangqi.position import perft

COUNTS = [44, 1920, 79666]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_opening_position_has_the_known_numbers_of_moves(depth):
    assert perft(OPENING, depth) == COUNTS[depth - 1]


@pytest.mark.slow
def test_the_opening_position_four_plies_deep():
    assert perft(OPENING, 4) == 3_290_240


def moves_of(fen):
    return {move_name(move) for move in read_fen(fen).legal_moves()}


def from_square(fen, square):
    return sorted(name[2:] for name in moves_of(fen) if name.startswith(square))


def test_generals_may_not_face_each_other():
    shielded = "4k4/9/9/9/9/4P4/9/9/9/4K4 w"
    assert from_square(shielded, "e4") == ["e5"]
    assert from_square("4k4/9/9/9/4P4/9/9/9/9/4K4 w", "e5") == ["e6"]  # not aside
    assert from_square("3k5/9/9/9/9/9/9/9/9/4K4 w", "e0") == ["e1", "f0"]


def test_a_horse_is_hobbled_and_an_elephant_blocked():
    assert from_square("4k4/9/9/9/4P4/9/9/2P6/1PN6/3K5 w", "c1") == ["e0", "e2"]
    assert from_square("3k5/9/9/9/9/9/9/3p5/4P4/2B1K4 w", "c0") == ["a2", "e2"]
    assert from_square("3k5/9/9/9/9/9/9/9/1p7/2B1K4 w", "c0") == ["e2"]
    assert from_square("3k5/9/9/9/9/4B4/9/9/9/4K4 w", "e4") == ["c2", "g2"]  # not over the river


def test_a_cannon_captures_over_one_screen():
    fen = "4k4/9/4p4/9/4p4/9/4C4/9/4p4/3K5 w"
    assert from_square(fen, "e3") == [
        *("a3", "b3", "c3", "d3", "e2", "e4", "e7", "f3", "g3", "h3", "i3"),
    ]


def test_advisors_and_generals_stay_in_the_palace_and_soldiers_step_aside_behind_the_river():
    assert from_square("4k4/9/9/9/9/9/9/5A3/9/3K5 w", "f2") == ["e1"]
    assert from_square("4k4/9/9/9/9/9/9/9/5K3/9 w", "f1") == ["f0", "f2"]
    assert from_square("3k5/9/9/9/2P6/9/9/9/9/5K3 w", "c5") == ["b5", "c6", "d5"]
    assert from_square("3k5/9/9/9/9/2P6/9/9/9/5K3 w", "c4") == ["c5"]


def test_a_check_must_be_answered():
    assert moves_of("3k5/9/9/9/4r4/9/9/9/9/R3K4 w") == {"e0f0"}
    assert moves_of("4k4/9/9/9/9/9/9/9/3r5/3K5 w") == {"d0d1"}
    assert not moves_of("4k4/9/9/9/9/9/9/3r5/3r5/3K5 w")


FENS = [
    START,
    "r1bakab1r/9/1cn2cn2/p1p1p1p1p/9/2P6/P3P1P1P/1C2C1N2/9/RNBAKAB1R b",
    "3akab2/9/4b4/p3C3p/6c2/2n3P2/P1N1r3P/4B4/4A4/2BAK2R1 b",
    "2bak4/4a4/4b1N2/9/2p1p4/3n5/2P5P/4C4/4A4/2BAK4 b",
    "3k1a3/4a4/4b4/9/3R1P3/9/9/4B3n/1r2A4/4KAB2 b",
    "4k4/4a4/9/4C4/9/4c4/9/4B4/4A4/4K4 b",
]


@pytest.mark.parametrize("fen", FENS)
def test_the_generator_agrees_with_one_that_captures_generals(fen):
    draw = random.Random(fen)
    for _ in range(20):
        position = read_fen(fen)
        for _ in range(30):
            legal = position.legal_moves()
            assert sorted(map(move_name, legal)) == sorted(by_capture(position))
            if not legal:
                break
            position = position.after(draw.choice(legal))


def test_is_legal_is_membership():
    position = read_fen(FENS[2])
    for _ in range(8):
        legal = set(position.legal_moves())
        assert {move for move in MOVES.values() if position.is_legal(move)} == legal
        position = position.after(sorted(legal)[len(legal) // 2])


def by_capture(position):
    """The names of the legal moves: those after which no move of the other side captures the
    general."""
    squares = {(n % 9, n // 9): piece for n, piece in enumerate(position.board) if piece}
    for start, target in going(squares, position.side):
        after = {**squares, target: squares[start]}
        del after[start]
        others = going(after, -position.side)
        if not any(after.get(end) == position.side for _, end in others):
            yield "".join("abcdefghi"[x] + str(y) for x, y in (start, target))


def going(squares, side):
    """(from, to) of every way that the side's pieces can go; generals fly at each other."""
    found = []
    for (x, y), piece in squares.items():
        if piece * side > 0:
            ways = list(WAYS[abs(piece)](squares, x, y, side))
            found += [((x, y), way) for way in ways if squares.get(way, 0) * side <= 0]
    return [pair for pair in found if 0 <= pair[1][0] < 9 and 0 <= pair[1][1] < 10]


def palace(x, y, side):
    return 3 <= x <= 5 and (y <= 2 if side > 0 else y >= 7)


def general(squares, x, y, side):
    for dx, dy in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        if palace(x + dx, y + dy, side):
            yield x + dx, y + dy
    other = next((at for at, piece in squares.items() if piece == -side), None)
    if other and other[0] == x:
        between = range(min(y, other[1]) + 1, max(y, other[1]))
        if not any((x, row) in squares for row in between):
            yield other


def advisor(squares, x, y, side):
    ways = [(x + dx, y + dy) for dx in (1, -1) for dy in (1, -1)]
    return [way for way in ways if palace(*way, side)]


def elephant(squares, x, y, side):
    for dx in (1, -1):
        for dy in (1, -1):
            own_half = y + 2 * dy <= 4 if side > 0 else y + 2 * dy >= 5
            if (x + dx, y + dy) not in squares and own_half:
                yield x + 2 * dx, y + 2 * dy


def horse(squares, x, y, side):
    for dx, dy in ((1, 2), (2, 1), (-1, 2), (-2, 1), (1, -2), (2, -1), (-1, -2), (-2, -1)):
        leg = (x, y + dy // 2) if abs(dy) == 2 else (x + int(dx / 2), y)
        if leg not in squares:
            yield x + dx, y + dy


def sliding(squares, x, y):
    """Each line as its squares in order."""
    for dx, dy in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        line = [(x + dx * n, y + dy * n) for n in range(1, 10)]
        yield [at for at in line if 0 <= at[0] < 9 and 0 <= at[1] < 10]


def chariot(squares, x, y, side):
    for line in sliding(squares, x, y):
        for n, at in enumerate(line):
            if not any(before in squares for before in line[:n]):
                yield at


def cannon(squares, x, y, side):
    for line in sliding(squares, x, y):
        for n, at in enumerate(line):
            screens = sum(before in squares for before in line[:n])
            if screens == (1 if at in squares else 0):
                yield at


def soldier(squares, x, y, side):
    yield x, y + side
    if (y >= 5) == (side > 0):
        yield x + 1, y
        yield x - 1, y


WAYS = dict(enumerate([general, advisor, elephant, horse, chariot, cannon, soldier], 1))


@pytest.mark.parametrize("fen", FENS)
def test_a_fen_is_written_as_it_was_read(fen):
    assert write_fen(read_fen(fen)) == fen
    assert read_fen(f"{fen} - - 0 1") == read_fen(fen)


@pytest.mark.parametrize(
    ("fen", "message"),
    [
        ("", "expected 10 ranks"),
        ("4k4/9/9/9/9/9/9/9/4K4 w", "expected 10 ranks .* got 9"),
        (START.replace("9/9/P", "9/8/P"), "rank 4: expected 9 squares, got 8"),
        (START.replace("1c5c1", "1q5c1"), "rank 7: no piece is called 'q'"),
        (START.replace(" w", " x"), "expected the side to move, w or b, got 'x'"),
        (START.replace("K", "1"), "red has no general"),
        ("4k4/9/9/9/4K4/9/9/9/9/9 w", "red's general is on e5, outside its palace"),
        (START.replace("9/9/P", "4C4/9/P"), "red has 3 of the piece C: expected at most 2"),
        ("4k4/4R4/9/9/9/9/9/9/9/3K5 w", "the general of the side that has just moved is attacked"),
        ("4k4/9/9/9/9/9/9/9/9/²K7 w", "no piece is called"),
    ],
)
def test_a_fen_that_is_none_says_why(fen, message):
    with pytest.raises(RecordError, match=f'field "fen": .*{message}'):
        read_fen(fen)
