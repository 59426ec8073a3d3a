"""Chinese chess: a language model of games, which writes legal moves only.

    in     {"moves": ["h2e2", "h9g7"]}                    "fen" for a start of its own
    train  {"moves": ["h2e2", "h9g7", "h0g2", ...]}       whole games
    out    {..., "prediction": {"ply": 2, "phase": "opening", "over": "",
            "moves": [{"move": "h0g2", "probability": 0.61, "then": []}, ...]}}

Moves are ICCS; how they and positions become tokens is said in `symbols`. A game is read in windows
of `window` plies, each with the position before it as the source of a prefix-LM, so that a game may
have any length; training cuts it at other places every time.

Predictions are found by beam search under the legal moves (`constraint`). The probability of a move
is the product of those of its coordinates, each among the coordinates that legal moves leave, so
that those of all legal moves add up to 1. With `plies` above 1 every beam goes on on its own board.

`eval` reads all plies of a game in one pass for the perplexity, and searches at `evaluated` of its
plies, drawn by `seed` and the game. Metrics are those of `scoring`.

Source: https://kexue.fm/archives/7877; published without figures.
Differs from it: windows that know their position; the constraint is the trie of legal coordinates,
not a score for each whole move; an end of the game is not predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn

from nlpkit import task
from nlpkit.config import Count, Range, Seed, Size
from nlpkit.decoding.constraint import Constraint
from nlpkit.decoding.per_position import Free
from nlpkit.decoding.search import beam_search
from nlpkit.errors import SettingsError
from nlpkit.formats.finding import Finding
from nlpkit.layers.cached_decoder import CachedDecoder
from nlpkit.tasks.xiangqi.constraint import LegalMoves
from nlpkit.tasks.xiangqi.game import SOURCE, Example, Window, over, read_game
from nlpkit.tasks.xiangqi.geometry import move_name
from nlpkit.tasks.xiangqi.model import Batch, Model, collate_games, collate_windows
from nlpkit.tasks.xiangqi.scoring import (
    BEST,
    Assessed,
    Candidate,
    Judged,
    Prediction,
    facts_of,
    parse_prediction,
    score_moves,
)
from nlpkit.tasks.xiangqi.symbols import COUNT, END, Symbols, move_of
from nlpkit.text.tokenizer import Tokenizer

ROWS = 64
"""Plies that evaluation searches together."""


@dataclass(frozen=True)
class Settings:
    """Settings, section `xiangqi`."""

    window: Annotated[int, Range(1, 4096)] = 32
    """Plies that are read together; before them stands the position from which they start."""
    curriculum: Count = 0
    """Games that are read with windows of an eighth of their length; to twice as many a quarter is
    read, to four times as many a half, then all. 0 for all from the beginning."""
    moves: Size = 5
    """Best moves that a prediction lists."""
    plies: Size = 1
    """Plies of every listed continuation, its first move included."""
    beam_size: Size = 16
    """Of the search; at least `moves` are taken."""
    evaluated: Count = 4
    """Plies of each game at which `eval` searches the best moves; 0 for all."""
    seed: Seed = 1
    """Of the drawing of these plies."""


class Task(task.Writes, task.Task[Example, Batch, Prediction]):
    """See the module docstring.

    Raises SettingsError where a window is longer than the encoder takes, or its vocabulary lacks
    the symbols.
    """

    Config = Settings
    monitor = "likelihood"
    group = "phase"
    parse = staticmethod(parse_prediction)

    @classmethod
    def prepare(
        cls, config: Settings, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> Settings:
        """Nothing: the symbols are the vocabulary's."""
        return config

    def __init__(self, config: Settings, tokenizer: Tokenizer, folder: Path | None):
        self.config = config
        self.tokenizer = tokenizer
        self.symbols = Symbols(tokenizer)
        if tokenizer.max_length is None:
            return
        room = (tokenizer.max_length - SOURCE) // 4
        for name, plies in (("window", config.window), ("plies", config.plies)):
            if plies > room:
                raise SettingsError(
                    f"xiangqi.{name}: expected at most {room} plies, got {plies}: "
                    f"the encoder takes {tokenizer.max_length} tokens"
                )
        if config.window + config.plies - 1 > room:
            raise SettingsError(
                f"xiangqi.plies: a window of {config.window} plies and {config.plies} more are "
                f"longer than the {room} that the encoder takes"
            )

    def read(self, record: dict[str, Any]) -> Example:
        """`moves`, perhaps none, and `fen`. Raises RecordError that names an illegal move."""
        return read_game(record, self.config.window, self.config.evaluated, self.config.seed)

    def augmenter(self, examples: Sequence[Example]) -> Callable[[Example, Any], Example] | None:
        """Cuts a game at other plies."""

        def augment(example: Example, random: Any) -> Example:
            return replace(example, offset=int(random.integers(self.config.window)))

        return augment

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """With targets the rows of the games, padded."""
        if not targets:
            return Batch(list(examples), None)
        games = [example.windows() for example in examples]
        return Batch(list(examples), collate_games(games, self.symbols, self.tokenizer))

    def build_model(self, encoder: nn.Module) -> Model:
        """The encoder with its head for the symbols."""
        return Model(encoder, self.symbols.token_ids, self.config.window, self.config.curriculum)

    def beams_and_steps(self, example: Example) -> tuple[int, int]:
        """See `task.Writes`: a ply is four symbols."""
        return max(self.config.moves, self.config.beam_size), 4 * self.config.plies

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """The best continuations after the last move of every game."""
        windows = [example.before(len(example.moves)) for example in batch.examples]
        found = self._search(model, windows, self.config.moves, self.config.plies)
        return [
            self._prediction(example, window, beams)
            for example, window, beams in zip(batch.examples, windows, found, strict=True)
        ]

    def _search(
        self, model: Model, windows: list[Window], moves: int, plies: int
    ) -> list[list[tuple[list[int], float]]]:
        """(symbols, log-probability) of the best legal continuations of each window."""
        positions = [window.last_position for window in windows]
        constraint = LegalMoves(positions, plies, model.symbol_ids_S.device)
        beam_size = max(moves, self.config.beam_size)
        found = self._found(model, windows, constraint, beam_size, plies)
        return [beams[:moves] for beams in found]

    def _found(
        self,
        model: Model,
        windows: list[Window],
        constraint: Constraint,
        beam_size: int,
        plies: int,
    ) -> list[list[tuple[list[int], float]]]:
        tokens = collate_windows(windows, self.symbols, self.tokenizer)
        symbol_ids_S = model.symbol_ids_S
        sources = tokens.to(symbol_ids_S.device)
        decoder = CachedDecoder(model.encoder, sources, alphabet_V=symbol_ids_S)
        return beam_search(
            decoder, constraint, len(windows), beam_size, 4 * plies, norm="renorm"
        ).lists()

    def _prediction(
        self, example: Example, window: Window, beams: list[tuple[list[int], float]]
    ) -> Prediction:
        """The prediction of (symbols, log-probability) pairs, best first."""
        ply = len(example.moves)
        candidates = []
        for symbols, score in beams:
            names = _names(symbols)
            if names:
                probability = round(float(torch.tensor(score).exp()), 6)
                candidates.append(Candidate(names[0], probability, names[1:]))
        end = "" if candidates else over(window.last_position)
        return Prediction(ply, example.phase(ply), candidates, end)

    def evaluate(
        self, model: Model, batch: Batch, *, loose: bool = False, brief: bool = False
    ) -> list[Prediction]:
        """-log p of the moves of every game, and, unless `brief`, the best moves at some plies."""
        rows = self.collate(batch.examples).to(model.symbol_ids_S.device).rows
        assert rows is not None
        logits_NS = model.logits(rows)
        games = len(batch.examples)
        nats_B = torch.zeros(games, device=logits_NS.device, dtype=torch.float64)
        nats_B.index_add_(0, rows.game_N, model.nats(rows, logits_NS).detach().double())
        is_right_N4 = (logits_NS.argmax(1) == rows.symbol_N).view(-1, 4)
        spelled_B = torch.zeros(games, device=logits_NS.device, dtype=torch.int64)
        spelled_B.index_add_(0, rows.game_N.view(-1, 4)[:, 0], is_right_N4.all(1).long())
        judged: list[list[Judged]] = [[] for _ in batch.examples]
        if not brief:
            judged = self._judged(model, batch.examples)
        assessed: list[Prediction] = []
        for number, example in enumerate(batch.examples):
            plies = len(example.moves)
            assessed.append(
                Assessed(
                    ply=plies - 1,
                    phase=example.phase(plies - 1),
                    moves=[],
                    nats=float(nats_B[number]),
                    plies=plies,
                    spelled=int(spelled_B[number]),
                    judged=judged[number],
                )
            )
        return assessed

    def _judged(self, model: Model, examples: Sequence[Example]) -> list[list[Judged]]:
        """The evaluated plies of each game."""
        wanted = []
        for number, example in enumerate(examples):
            assert example.gold is not None
            wanted += [(number, ply) for ply in example.gold.evaluated]
        judged: list[list[Judged]] = [[] for _ in examples]
        for first in range(0, len(wanted), ROWS):
            some = wanted[first : first + ROWS]
            windows = [examples[number].before(ply) for number, ply in some]
            found = self._search(model, windows, BEST, 1)
            spelled = self._spelled(model, windows)
            for (number, ply), window, beams, symbols in zip(
                some, windows, found, spelled, strict=True
            ):
                best = [_names(one)[0] for one, _ in beams]
                move = move_of(symbols)
                is_legal = move is not None and window.last_position.is_legal(move)
                judged[number].append(Judged(ply, examples[number].phase(ply), best, is_legal))
        return judged

    def _spelled(self, model: Model, windows: list[Window]) -> list[list[int]]:
        """The four symbols that the model spells after each window without a constraint."""
        anything = Free(COUNT, END, min_length=4, device=model.symbol_ids_S.device)
        return [beams[0][0] for beams in self._found(model, windows, anything, 1, 1)]

    def facts(self, prediction: Prediction) -> dict[Any, str]:
        """The best move of every ply that is looked at, under the phase of the game."""
        return facts_of(prediction)

    def score(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
        """See `scoring`."""
        return score_moves(pairs)

    def report(self, example: Example) -> Iterator[Finding]:
        """A game that ends with a position without legal moves."""
        last = example.before(len(example.moves)).last_position
        if not last.legal_moves():
            yield Finding(over(last), f"after move {len(example.moves)} there is no legal move")


def _names(symbols: list[int]) -> list[str]:
    """The names of the moves that symbols spell, four each."""
    names = []
    for first in range(0, len(symbols), 4):
        move = move_of(symbols[first : first + 4])
        assert move is not None  # the constraint spells nothing else
        names.append(move_name(move))
    return names
