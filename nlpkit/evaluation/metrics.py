"""Precision, recall and F1 of sets of facts, and the threshold that makes the most of scored facts.

Micro average: facts are counted over all examples. F1 = 2 PR / (P + R); 0 / 0 is 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np

Facts = Mapping[Hashable, str]  # fact -> group


class MicroF1:
    """Counts of correct, predicted and gold facts, over all and by group."""

    def __init__(self) -> None:
        self.correct: Counter[str] = Counter()
        self.predicted: Counter[str] = Counter()
        self.gold: Counter[str] = Counter()

    def add(self, gold: Facts, predicted: Facts) -> None:
        """Takes in one example. What is right counts in the group of the gold fact."""
        self.correct.update(gold[fact] for fact in predicted if fact in gold)
        self.predicted.update(gold.get(fact, group) for fact, group in predicted.items())
        self.gold.update(gold.values())

    def total(self) -> dict[str, Any]:
        """Metrics over all groups."""
        return prf(self.correct.total(), self.predicted.total(), self.gold.total())

    def by_group(self) -> dict[str, dict[str, Any]]:
        """Metrics of every group, the largest first."""
        groups = sorted(self.gold | self.predicted, key=lambda g: (-self.gold[g], g))
        return {
            group: prf(self.correct[group], self.predicted[group], self.gold[group])
            for group in groups
        }


def prf(correct: int, predicted: int, gold: int) -> dict[str, Any]:
    """Precision, recall, F1 and the counts behind them."""
    precision, recall = correct / max(predicted, 1), correct / max(gold, 1)
    f1 = 2 * correct / max(predicted + gold, 1)
    counts = {"correct": correct, "predicted": predicted, "gold": gold}
    return {
        "precision": round(precision, 6),
        "recall": round(recall, 6),
        "f1": round(f1, 6),
        **counts,
    }


def best_threshold(scored: Iterable[tuple[float, bool]], gold: int, default: float = 0.0) -> float:
    """The threshold t with the best F1 of the facts scored above t.

    `scored` holds (score, correct) of every candidate, `gold` the number of gold facts. t lies in
    the middle between two scores, so that rounding does not flip the facts at its edge; `default`
    where there is nothing to choose from.
    """
    ranked = sorted(scored, key=lambda pair: -pair[0])
    if not ranked or not any(correct for _, correct in ranked) or not gold:
        return default
    scores = np.array([score for score, _ in ranked])
    correct = np.cumsum([correct for _, correct in ranked])
    f1 = 2 * correct / (np.arange(1, len(ranked) + 1) + gold)
    f1[:-1][scores[:-1] == scores[1:]] = -1  # a threshold cannot part equal scores
    best = int(f1.argmax())
    below = scores[best + 1] if best + 1 < len(scores) else scores[best] - 1.0
    return float((scores[best] + below) / 2)
