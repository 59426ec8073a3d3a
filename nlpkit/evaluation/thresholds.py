"""Thresholds of scored predictions: the one to decode with, the best one on dev, and what such a
one is worth on lines that it was not tuned on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from nlpkit.evaluation.metrics import best_threshold

T = TypeVar("T")  # a prediction
S = TypeVar("S", bound=Any)  # something with a score

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
) -> float:
    """The threshold with the best F1 of loose (gold, prediction) pairs.

    `items` are the scored things of a prediction, `fact` what one of them states, `facts` what gold
    states.
    """
    scored: list[tuple[float, bool]] = []
    gold_count = 0
    for gold, prediction in pairs:
        gold_facts = facts(gold)
        gold_count += len(gold_facts)
        scored += [(item.score, fact(item) in gold_facts) for item in items(prediction)]
    best = best_threshold(scored, gold_count)
    return max(LOOSE_THRESHOLD, best)  # nothing is known of what lies below


def above(threshold: float | None, items: Iterable[S]) -> list[S]:
    """The items whose `score` lies above the threshold; without one, all. No score is 0."""
    if threshold is None:
        return list(items)
    return [item for item in items if (item.score or 0.0) > threshold]


def untuned_half(task: Any, pairs: Sequence[tuple[T, T]], tuned: Sequence[bool]) -> dict[str, Any]:
    """The task's monitored metric where the threshold has seen nothing of the lines it is tried on.

    The threshold is tuned on the loose (gold, prediction) pairs of the lines that `tuned` names,
    and applied once to the others. Returns `{"f1_untuned_half": value}`, named after the metric;
    nothing where one half has no line.
    """
    seen = [pair for pair, is_seen in zip(pairs, tuned, strict=True) if is_seen]
    unseen = [pair for pair, is_seen in zip(pairs, tuned, strict=True) if not is_seen]
    if not seen or not unseen:
        return {}
    settings = task.tune(seen)
    cut = [(gold, task.cut(prediction, settings)) for gold, prediction in unseen]
    return {f"{task.monitor}_untuned_half": task.score(cut)[task.monitor]}
