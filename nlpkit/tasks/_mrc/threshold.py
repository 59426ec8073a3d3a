"""The threshold of an answer's score at or below which a question is said to have no answer."""

from __future__ import annotations

from collections.abc import Iterable

from nlpkit.tasks._mrc.answers import Prediction
from nlpkit.tasks._mrc.cmrc_score import cmrc_f1


def best_threshold(pairs: Iterable[tuple[Prediction, Prediction]]) -> float:
    """The threshold with the best sum of `cmrc_f1` over (gold, prediction) pairs.

    Of several it is the lowest. A prediction without an answer stays so.
    """
    gains = []
    for gold, prediction in pairs:
        if prediction.answer:
            given = cmrc_f1(gold.accepted, prediction.answer)
            withheld = cmrc_f1(gold.accepted, "")
            gains.append((prediction.score or 0.0, withheld - given))
    gains.sort()
    best = total = 0.0
    threshold = gains[0][0] - 1 if gains else 0.0
    for place, (score, gain) in enumerate(gains):
        total += gain
        is_last = place + 1 == len(gains) or gains[place + 1][0] > score
        if is_last and total > best:
            best = total
            threshold = score
    return threshold
