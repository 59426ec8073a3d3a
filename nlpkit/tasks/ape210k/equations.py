"""Equations with their answers, as gold and as predictions: read, compared and counted.

    gold        {"equation": "x=12*(1-(1/4))", "answer": "9"}
    prediction  {"equation": "12*(1-(1/4))", "answer": "9", "decimal": 9.0, "score": -0.1,
                 "beams": [...]}

Of gold one of the two may be missing; its answer may be a number or arithmetic such as 2(1/3), 75%,
(3/5).
An answer is an exact fraction ("9", "7/3"). Two are equal if they are so to DECIMALS decimals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

from nlpkit.errors import RecordError, shown
from nlpkit.formats.typed import read_value
from nlpkit.tasks.ape210k.arithmetic import LONGEST, EquationError, evaluate, parse

DECIMALS = 6
NONE = "no arithmetic"
Choice = Literal["beam", "value"]
"""What is chosen among equations: the likeliest one, or one of the likeliest value."""


@dataclass(frozen=True)
class Beam:
    """An equation with its value, None where it has none, and the log-probability of its tokens."""

    equation: str
    answer: str | None
    score: float


@dataclass(frozen=True)
class Prediction:
    """An equation and its value; in gold without score and beams, and with the answer that is
    given."""

    equation: str
    answer: str | None
    decimal: float | None = None
    score: float | None = None
    beams: list[Beam] = field(default_factory=list)


def read_gold(record: dict[str, Any]) -> Prediction | None:
    """The gold of a record, None where it has neither equation nor answer. Raises RecordError for a
    wrong type.

    Without an answer it is the equation's; one that is no arithmetic stays as it is, so that
    nothing equals it.
    """
    equation = read_value(str | None, record.get("equation"), "equation") or ""
    answer = _read_answer(record)
    if answer is None and not equation:
        return None
    given = equation if answer is None else answer
    exact = exact_answer(given)
    return Prediction(equation, given if exact is None else exact, decimal_of(exact))


def _read_answer(record: dict[str, Any]) -> str | None:
    """The field `answer`, a string or a number, as it is written; None where there is none.

    Raises RecordError for another type and for an integer of more than LONGEST digits.
    """
    answer = record.get("answer")
    if answer is None or isinstance(answer, str):
        return answer
    if type(answer) is float:
        return f"{Decimal(str(answer)):f}"  # without an exponent
    if type(answer) is int and abs(answer) < 10**LONGEST:
        return str(answer)
    raise RecordError(f'field "answer": expected a number or a string, got {shown(answer)}')


def parse_prediction(value: dict[str, Any]) -> Prediction:
    """A prediction from a file: what `predict` wrote, or an equation or answer alone. Raises
    RecordError."""
    if value.get("equation") is None and value.get("answer") is None:
        raise RecordError('missing field "answer"')
    found = read_gold(value) or Prediction("", None)
    beams = read_value(list[Beam], value.get("beams", []), "beams")
    score = read_value(float | None, value.get("score"), "score")
    return replace(found, answer=exact_answer(found.answer or ""), score=score, beams=beams)


def exact_answer(equation: str) -> str | None:
    """The value as a fraction, None where there is none."""
    try:
        return str(evaluate(equation))
    except EquationError:
        return None


def decimal_of(answer: str | None) -> float | None:
    """An answer of `exact_answer` as a float."""
    return None if answer is None else float(Fraction(answer))


def worth(answer: str | None, negative: bool) -> int:
    """2 for an answer, 1 for one below 0 that should not be (without `negative`), 0 for none."""
    if answer is None:
        return 0
    return 2 if negative or not answer.startswith("-") else 1


def choose(beams: list[Beam], negative: bool, by: Choice = "beam") -> Prediction:
    """The prediction of some beams, best first, at least one: of those whose answers are worth
    most, the first, or by "value" the first with the answer that is likeliest over all of them."""
    most = max(worth(beam.answer, negative) for beam in beams)
    fit = [beam for beam in beams if worth(beam.answer, negative) == most]
    best = fit[0]
    if by == "value" and most > 0:
        likelihood = likelihood_of_answers(fit)
        best = max(fit, key=lambda beam: likelihood[rounded(beam.answer or "")])
    return Prediction(best.equation, best.answer, decimal_of(best.answer), best.score, beams)


def likelihood_of_answers(beams: Sequence[Beam]) -> dict[str, float]:
    """Rounded answer -> the probability of its equations together, up to a factor of all of them:
    many ways of writing one value support each other. There is at least one beam."""
    likelihood: dict[str, float] = {}
    highest = max(beam.score for beam in beams)
    for beam in beams:
        answer = rounded(beam.answer or "")
        likelihood[answer] = likelihood.get(answer, 0.0) + math.exp(beam.score - highest)
    return likelihood


def rounded(answer: str) -> str:
    """An answer for comparing: its value to DECIMALS decimals, or the answer as it stands where it
    has no value within the bounds of `arithmetic`."""
    exact = exact_answer(answer)
    return answer if exact is None else str(round(Fraction(exact), DECIMALS))


def operators_of(equation: str) -> str:
    """How many operators an equation has, NONE where it is no arithmetic."""
    try:
        return str(sum(isinstance(item, str) for item in parse(equation)))
    except EquationError:
        return NONE


def score_answers(pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
    """Shares of all problems: the answer right, that of any beam right, the equation complete
    arithmetic."""
    counts = {"accuracy": 0, "solved_by_a_beam": 0, "well_formed": 0}
    problems = 0
    for gold, prediction in pairs:
        answers = [prediction.answer, *(beam.answer for beam in prediction.beams)]
        right = [
            answer is not None and rounded(answer) == rounded(gold.answer or "")
            for answer in answers
        ]
        problems += 1
        counts["accuracy"] += right[0]
        counts["solved_by_a_beam"] += any(right)
        counts["well_formed"] += operators_of(prediction.equation) != NONE
    shares = {name: round(count / max(1, problems), 6) for name, count in counts.items()}
    return {**shares, "problems": problems, "match": f"values to {DECIMALS} decimals"}
