"""Thresholds of scored predictions: the one to decode with, and the best one on dev."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from nlpkit.evaluation.metrics import best_threshold

T = TypeVar("T")

LOOSE_THRESHOLD = -5.0


def threshold_for(threshold: float | None, loose: bool) -> float:
    """The threshold to decode with: the loose one, the one set or tuned, or the loss's own 0."""
    if loose:
        return LOOSE_THRESHOLD
    return 0.0 if threshold is None else threshold


def tune_threshold(
    pairs: Iterable[tuple[T, T]],
    facts: Callable[[T], dict[Any, str]],
    items: Callable[[T], Sequence[Any]],
    fact: Callable[[Any], Any],
) -> tuple[float, list[list[Any]]]:
    """The threshold with the best F1 of loose predictions, and the items of every prediction that
    lie above it.

    `items` are the scored things of a prediction, `fact` what one of them states, `facts` what gold
    states.
    """
    scored: list[tuple[float, bool]] = []
    predicted: list[Sequence[Any]] = []
    gold_count = 0
    for gold, prediction in pairs:
        gold_facts = facts(gold)
        gold_count += len(gold_facts)
        predicted.append(items(prediction))
        scored += [(item.score, fact(item) in gold_facts) for item in items(prediction)]
    threshold = max(
        LOOSE_THRESHOLD, best_threshold(scored, gold_count)
    )  # nothing is known of what lies below
    return threshold, [[item for item in found if item.score > threshold] for found in predicted]
