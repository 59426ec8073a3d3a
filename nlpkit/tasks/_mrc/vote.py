"""One answer from those of several windows: https://kexue.fm/archives/7148.

Equal answers of windows m with scores s_m are put together:

    score = sum_m s_m^2 / (1 + sum_m s_m)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nlpkit.tasks._mrc.answers import Answer, Prediction, normalise

LISTED = 5
"""The best of every window take part in the vote, and the best of all are listed."""


def vote(windows: Sequence[Sequence[Answer]]) -> Prediction:
    """The best answers of several windows, equal ones put together, and the others.

    The answers of a window come best first; of equal ones in a window the best counts. An empty
    answer where no window has one.
    """
    equal: dict[str, list[Answer]] = {}
    for answers in windows:
        best_of_window = {normalise(answer.answer): answer for answer in reversed(answers)}
        for string, answer in best_of_window.items():
            equal.setdefault(string, []).append(answer)
    ranked = sorted(map(_merged, equal.values()), key=lambda answer: -(answer.score or 0.0))
    best, *others = ranked or [Answer("")]
    return Prediction(**vars(best), alternatives=others[: LISTED - 1])


def _merged(answers: list[Answer]) -> Answer:
    """The first of equal answers, with the score of all."""
    scores = [answer.score or 0.0 for answer in answers]
    total = sum(score * score for score in scores) / (1 + sum(scores))
    return replace(answers[0], score=float(f"{total:.4g}"))
