"""Games as records, as windows, and under the legal moves."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import nlpkit
from small_runs import save_run

from nlpkit import encoders, samples
from nlpkit.decoding.search import beam_search
from nlpkit.errors import RecordError, SettingsError
from nlpkit.inference.predictor import predict_examples
from nlpkit.tasks.xiangqi.constraint import LegalMoves
from nlpkit.tasks.xiangqi.fen import OPENING, read_fen, write_fen
from nlpkit.tasks.xiangqi.geometry import MOVES, move_name
from nlpkit.tasks.xiangqi.scoring import Assessed, Gold, Judged, Prediction, score_moves
from nlpkit.tasks.xiangqi.symbols import COUNT, Symbols, move_of, spelled
from nlpkit.tasks.xiangqi.task import Settings, Task

SHAPE = encoders.ShapeConfig(
    family="bert", layers=1, hidden_size=32, heads=2, intermediate_size=32, max_length=256
)
MATED = "3k5/9/9/9/9/9/9/9/r8/r3K4 w"
GAMES = list(samples.records("xiangqi", 8, seed=5))


@pytest.fixture
def made():
    torch.manual_seed(0)
    encoder, backend = encoders.for_pretraining(None, SHAPE)
    tokenizer = encoders.tokenizer_of(encoder, backend)

    def make(**settings):
        task = Task(Settings(**settings), tokenizer, None)
        return task, task.build_model(encoder).eval()

    return make


def test_every_move_is_spelled_and_read_back():
    assert all(move_of(list(spelled(move))) == move for move in MOVES.values())
    assert move_of([0, 9, 0, 19]) is None
    assert move_of([9, 0, 0, 9]) is None


def test_windows_hold_every_move_once_and_know_their_positions(made):
    task, _ = made(window=5)
    for game in GAMES:
        example = task.read(game)
        augment = task.augmenter([example])
        for cut in (example, *(augment(example, np.random.default_rng(n)) for n in range(4))):
            windows = cut.windows()
            assert tuple(move for window in windows for move in window.moves) == example.moves
            assert all(0 < len(window.moves) <= 5 for window in windows)
            position = example.start
            for window in windows:
                assert window.position == position
                position = window.last_position
            tokens = task.collate([cut]).rows.tokens.mask_BT.sum()
            assert tokens <= len(cut)


def test_the_loss_of_a_game_is_that_of_its_windows(made):
    task, model = made(window=6)
    example = task.read(max(GAMES, key=lambda game: len(game["moves"])))
    parts = [
        replace(example, start=window.position, moves=window.moves) for window in example.windows()
    ]
    whole = model(task.collate([example]))
    assert len(parts) > 3
    torch.testing.assert_close(whole[0], model(task.collate(parts)).sum(), rtol=1e-5, atol=1e-4)


def test_no_coordinate_sees_a_later_one(made):
    task, model = made()
    moves = GAMES[0]["moves"]
    longer = task.collate([task.read({**GAMES[0], "moves": moves})]).rows
    shorter = task.collate([task.read({**GAMES[0], "moves": moves[:-1]})]).rows
    seen = len(shorter.symbol_N)
    torch.testing.assert_close(model.logits(longer)[:seen], model.logits(shorter))


class Random:
    """A model that scores symbols by what was written before them."""

    def __init__(self, rows):
        self.tokens = [[[]] for _ in range(rows)]

    def first(self):
        return torch.stack([self._logits([]) for _ in self.tokens])

    def next(self, token_BK, beam_BK):
        pairs = zip(self.tokens, token_BK.tolist(), beam_BK.tolist(), strict=True)
        self.tokens = [
            [[*before[beam], token] for token, beam in zip(tokens, beams, strict=True)]
            for before, tokens, beams in pairs
        ]
        return torch.stack([torch.stack([self._logits(t) for t in row]) for row in self.tokens])

    def _logits(self, tokens):
        draw = random.Random(str(tokens))
        return torch.tensor([draw.gauss(0, 2) for _ in range(COUNT)])


def test_the_search_is_brute_force_over_legal_moves():
    """Two plies, the second on the board after the first; all probabilities add up to 1."""
    fens = ["3k5/9/9/9/9/9/9/4p4/9/3NK4 w", "3k5/9/4P4/9/9/9/9/9/9/4K4 b"]
    positions = [read_fen(fen) for fen in fens]
    found = beam_search(Random(2), LegalMoves(positions, 2), 2, 200, 8, norm="renorm").lists()
    for position, sequences in zip(positions, found, strict=True):
        expected = set()
        for move in position.legal_moves():
            for reply in position.after(move).legal_moves():
                expected.add((move, reply))
        pairs = {(move_of(tokens[:4]), move_of(tokens[4:])) for tokens, _ in sequences}
        assert pairs == expected
        assert math.isclose(sum(math.exp(score) for _, score in sequences), 1, rel_tol=1e-4)


def test_a_sequence_ends_where_there_is_no_legal_move():
    """Black mates with i2i0, and has two moves of stalemate; nothing follows them."""
    position = read_fen("3k5/9/9/9/9/9/9/8r/r8/4K4 b")
    found = beam_search(Random(1), LegalMoves([position], 2), 1, 300, 8, norm="renorm").lists()
    lengths = {move_name(move_of(tokens[:4])): len(tokens) for tokens, _ in found[0]}
    mates = {name for name, length in lengths.items() if length == 4}
    after = {name: position.after(MOVES[name]) for name in lengths}
    assert mates == {name for name, board in after.items() if not board.legal_moves()}
    assert "i2i0" in mates


def test_predictions_are_legal_and_their_probabilities_add_up(made):
    task, model = made(moves=200, window=7)
    examples = [task.read(game) for game in GAMES]
    for example, found in zip(examples, predict_examples(task, model, examples), strict=True):
        last = example.before(len(example.moves)).last_position
        names = sorted(candidate.move for candidate in found.moves)
        assert names == sorted(map(move_name, last.legal_moves()))
        if names:
            assert math.isclose(sum(c.probability for c in found.moves), 1, rel_tol=1e-3)
        assert found.ply == len(example.moves)


def test_continuations_go_on_by_the_wanted_plies(made):
    task, model = made(plies=3, moves=4, window=8)
    examples = [task.read({**game, "moves": game["moves"][:6]}) for game in GAMES]
    for example, found in zip(examples, predict_examples(task, model, examples), strict=True):
        assert len(found.moves) == 4
        for candidate in found.moves:
            position = example.before(len(example.moves)).last_position
            for name in (candidate.move, *candidate.then):
                assert position.is_legal(MOVES[name])
                position = position.after(MOVES[name])
            assert len(candidate.then) == 2 or not position.legal_moves()


def test_a_lost_game_has_no_next_move(made):
    task, model = made()
    history = {"fen": "3k5/9/9/9/9/9/9/8r/r8/4K4 b", "moves": ["i2i0"]}
    (found,) = predict_examples(task, model, [task.read(history)])
    assert found.moves == []
    assert found.over == "checkmate"
    assert [finding.kind for finding in task.report(task.read(history))] == ["checkmate"]


def test_evaluation_searches_what_prediction_searches(made):
    task, model = made(evaluated=0, window=6, moves=5)
    example = task.read(GAMES[0])
    (assessed,) = task.evaluate(model, task.collate([example], targets=False))
    assert [judged.ply for judged in assessed.judged] == list(range(len(example.moves)))
    for judged in assessed.judged[::3]:
        history = {**GAMES[0], "moves": GAMES[0]["moves"][: judged.ply]}
        (found,) = predict_examples(task, model, [task.read(history)])
        assert [candidate.move for candidate in found.moves] == judged.best
    nats = float(model(task.collate([example])).detach())
    assert math.isclose(assessed.nats, nats, rel_tol=1e-5)


def test_what_is_evaluated_depends_on_the_game_alone(made):
    task, _ = made(evaluated=3)
    other, _ = made(evaluated=3, seed=2)
    drawn = [task.read(game).gold.evaluated for game in GAMES]
    assert drawn == [task.read(game).gold.evaluated for game in GAMES]
    assert drawn != [other.read(game).gold.evaluated for game in GAMES]
    assert all(len(plies) == 3 for plies in drawn)


def test_the_curriculum_lengthens_the_windows(made):
    task, model = made(window=16, curriculum=10)
    rows = task.collate([task.read(game) for game in GAMES]).rows
    lengths = []
    for seen in (0, 9, 10, 19, 20, 39, 40):
        model.seen.fill_(seen)
        lengths.append(model.plies())
        cut = rows.cut(4 * model.plies())
        assert int(cut.place_N.max()) + 1 <= 4 * model.plies()
        assert cut.tokens.token_ids_BT.shape[1] == int(cut.column_N.max()) + 1
    assert lengths == [2, 2, 4, 4, 8, 8, 16]
    model.train()
    model(task.collate([task.read(GAMES[0])])).sum().backward()
    model.count_examples(3)
    assert int(model.seen) == 43


def test_metrics_by_hand():
    played = ["h2e2", "h9g7", "h0g2"]
    gold = Gold(2, "opening", [], played=played, evaluated=[0, 2])
    judged = [
        Judged(0, "opening", ["h2e2", "b2e2"], True),
        Judged(2, "opening", ["i0h0", "h0g2"], False),
    ]
    found = Assessed(2, "opening", [], nats=3 * math.log(4), plies=3, spelled=1, judged=judged)
    metrics = score_moves([(gold, found)])
    assert metrics["perplexity"] == 4
    assert metrics["likelihood"] == 0.25
    assert metrics["spelled"] == 0.333333
    assert [metrics[name] for name in ("top_1", "top_5", "legal", "evaluated")] == [0.5, 1, 0.5, 2]
    assert metrics["top_1_opening"] == 0.5
    assert score_moves([(gold, Prediction(3, "opening", []))]) == {}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"moves": ["h2e2", "h9g8"]}, 'move 2 "h9g8" is illegal: the horse on h9 cannot go to g8'),
        ({"moves": ["h2e2", "h2e2"]}, 'move 2 "h2e2" is illegal: there is no piece on h2'),
        ({"moves": ["h9g7"]}, "the horse on h9 is not red's, who is to move"),
        ({"moves": ["a0a3"]}, "red's own soldier is on a3"),
        ({"moves": ["e2"]}, "move 1: expected one such as"),
        ({"moves": [3]}, "move 1: expected a string, got 3"),
        ({"moves": "h2e2"}, "expected a list of moves"),
        ({"moves": [], "fen": MATED}, 'field "fen": checkmate: there is no legal move'),
        (
            {"moves": [], "fen": "3k5/9/9/9/9/9/9/3r5/5r3/4K4 w"},
            'field "fen": stalemate: there is no legal move',
        ),
        ({"moves": [], "fen": 3}, 'field "fen": expected a string'),
        ({"moves": ["e0d0"], "fen": "3k5/9/9/9/9/9/9/9/9/4K4 w"}, "could then be captured"),
    ],
)
def test_a_wrong_game_says_what_is_wrong(made, record, message):
    task, _ = made()
    with pytest.raises(RecordError, match=message):
        task.read(record)


def test_moves_may_be_written_with_dashes_and_capitals(made):
    task, _ = made()
    assert task.read({"moves": ["H2-E2"]}).gold.played == ["h2e2"]


def test_a_window_must_fit_the_encoder(made):
    with pytest.raises(SettingsError, match=r"xiangqi.window: expected at most 39 plies, got 40"):
        made(window=40)
    with pytest.raises(SettingsError, match=r"xiangqi.plies: a window of 39 plies and 2 more"):
        made(window=39, plies=2)


def test_the_opening_has_no_source_and_any_other_position_its_pieces(made):
    task, _ = made()
    symbols = Symbols(task.tokenizer)
    assert symbols.source(OPENING) == []
    source = symbols.source(read_fen("3k5/9/9/9/9/9/9/9/9/4K4 b"))
    assert [task.tokenizer.backend.id_to_token(token) for token in source] == [*"将d9帅e0黑"]


def test_the_commands(tmp_path):
    save_run("xiangqi", tmp_path / "run")
    good = {"moves": ["h2e2", "h9g7"], "note": "x"}
    bad = {"moves": ["h2e2", "h9g9"]}
    lines = "".join(json.dumps(line) + "\n" for line in (good, bad))
    done = nlpkit(
        "predict", tmp_path / "run", "--on-error", "emit", stdin=lines.encode(), check=False
    )
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["note"] == "x"
    assert first["prediction"]["ply"] == 2
    assert len(first["prediction"]["moves"]) == 5
    assert 'move 2 "h9g9" is illegal' in second["error"]
    data = tmp_path / "games.jsonl"
    data.write_text(lines)
    checked = nlpkit("data", "check", "xiangqi", data, check=False)
    assert b'move 2 "h9g9" is illegal' in checked.stdout + checked.stderr


def test_made_up_games_are_legal_and_their_results_are_right(made):
    task, _ = made()
    games = list(samples.records("xiangqi", 60, seed=9))
    assert any("fen" in game for game in games)
    for game in games:
        example = task.read(game)
        last = example.before(len(example.moves)).last_position
        assert (game["result"] == "*") == bool(last.legal_moves())
        assert "fen" not in game or write_fen(example.start) == game["fen"]
