r"""What a prediction of moves holds, and the metrics of moves.

perplexity   exp(mean of -log p(move)) over all plies of the games, where log p(move) is the sum of
             those of its four coordinates among the 20 symbols, illegal ones included
likelihood   1 / perplexity: the geometric mean of p
spelled      share of the plies whose move the model spells by itself: each coordinate is the most
             probable one after those before it

and of the plies that are evaluated:

top_1, top_5   share whose move is the best of the legal ones, or among the best five
legal          share where the move that the model spells by itself is legal

By phase too: `opening` are the first 20 plies, `middle` the next 40, `end` what follows, `position`
the plies of games that start from a position of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nlpkit.formats.typed import read_dataclass

MIDDLE = 20
END = 60
BEST = 5
"""The plies at which these phases start, and how many moves count for `top_5`."""


def phase_of(ply: int, is_from_opening: bool) -> str:
    """The phase of a game before the move of number `ply`, counted from 0."""
    if not is_from_opening:
        return "position"
    if ply < MIDDLE:
        return "opening"
    return "middle" if ply < END else "end"


@dataclass(frozen=True)
class Candidate:
    """A legal move, the best replies that follow where more plies were asked for, and the
    probability of all of them together among the legal ones."""

    move: str
    probability: float
    then: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Prediction:
    """The best moves after `ply` plies, best first; none where the game is `over`."""

    ply: int
    phase: str
    moves: list[Candidate]
    over: str = ""
    """`checkmate` or `stalemate` where there is no legal move."""


@dataclass(frozen=True)
class Gold(Prediction):
    """A game: the names of its moves, and the plies to evaluate."""

    played: list[str] = field(default_factory=list)
    evaluated: list[int] = field(default_factory=list)
    is_from_opening: bool = True


@dataclass(frozen=True)
class Judged:
    """A ply that was evaluated: the best legal moves, and whether the model spells a legal one by
    itself."""

    ply: int
    phase: str
    best: list[str]
    spells_legal: bool


@dataclass(frozen=True)
class Assessed(Prediction):
    """What evaluation knows of a game: -log p of its moves in nats, how many are spelled as they
    were played, and its evaluated plies."""

    nats: float = 0.0
    plies: int = 0
    spelled: int = 0
    judged: list[Judged] = field(default_factory=list)


def parse_prediction(value: dict[str, Any]) -> Prediction:
    """A prediction as found in a file. Raises RecordError."""
    return read_dataclass(Prediction, value)


def facts_of(prediction: Prediction) -> dict[tuple[int, str], str]:
    """(ply, move) -> phase: of gold the moves that are evaluated, else the best moves found."""
    if isinstance(prediction, Gold):
        played = [(ply, prediction.played[ply]) for ply in prediction.evaluated]
        return {fact: phase_of(fact[0], prediction.is_from_opening) for fact in played}
    if isinstance(prediction, Assessed):
        return {(judged.ply, judged.best[0]): judged.phase for judged in prediction.judged}
    return {(prediction.ply, found.move): prediction.phase for found in prediction.moves[:1]}


def score_moves(pairs: Iterable[tuple[Any, Prediction]]) -> dict[str, Any]:
    """The metrics that (gold, prediction) pairs allow: of predictions without what evaluation adds
    only those of the best moves, where the gold has gone on."""
    nats = 0.0
    plies = 0
    spelled = 0
    tally: dict[str, list[int]] = {}
    is_legal: list[bool] = []
    for gold, found in pairs:
        if isinstance(found, Assessed):
            nats += found.nats
            plies += found.plies
            spelled += found.spelled
            is_legal += [judged.spells_legal for judged in found.judged]
            for judged in found.judged:
                _count(tally, judged.phase, judged.best, gold.played[judged.ply])
        elif found.ply < len(gold.played):
            best = [candidate.move for candidate in found.moves]
            _count(tally, found.phase, best, gold.played[found.ply])
    metrics: dict[str, Any] = {}
    if plies:
        mean = nats / plies
        metrics["likelihood"] = round(math.exp(-mean), 6)
        metrics["perplexity"] = round(math.exp(min(mean, 700)), 6)
        metrics["spelled"] = round(spelled / plies, 6)
        metrics["plies"] = plies
    metrics |= _shares(tally)
    if is_legal:
        metrics["legal"] = round(sum(is_legal) / len(is_legal), 6)
    return metrics


def _count(tally: dict[str, list[int]], phase: str, best: list[str], played: str) -> None:
    """Adds a ply to the (plies, right at once, right among five) of its phase."""
    for name in ("all", phase):
        counts = tally.setdefault(name, [0, 0, 0])
        counts[0] += 1
        counts[1] += played in best[:1]
        counts[2] += played in best[:BEST]


def _shares(tally: dict[str, list[int]]) -> dict[str, Any]:
    """top_1, top_5 and the number of plies, over all and by phase."""
    metrics: dict[str, Any] = {}
    for phase in ("all", "opening", "middle", "end", "position"):
        if phase in tally:
            plies, first, five = tally[phase]
            ending = "" if phase == "all" else f"_{phase}"
            metrics[f"top_1{ending}"] = round(first / plies, 6)
            metrics[f"top_5{ending}"] = round(five / plies, 6)
            metrics[f"evaluated{ending}"] = plies
    return metrics
