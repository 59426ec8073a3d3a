"""How far the scores of predictions can be trusted: the share of right ones at every height.

Predictions are sorted by score and cut to bins of equal number. As probabilities count scores from
0 to 1 as they are, log-probabilities (all at most 0) by exp, and logits by the logistic function;

    expected error = sum over bins of (share of all in the bin) * |mean probability - right share|

Source: Guo et al. 2017, arxiv.org/abs/1706.04599, equation 5, with bins of equal number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

BINS = 10


@dataclass(frozen=True)
class Scored:
    """A fact that was predicted, with its score, and whether it is right."""

    score: float
    right: bool


def scored_facts(task: Any, gold: Any, prediction: Any) -> list[Scored]:
    """What a prediction states, with scores: every one of its items, or all of it with the one
    score that it has; empty where it has none."""
    gold_facts = task.facts(gold)
    score = getattr(prediction, "score", None)
    if score is not None:
        facts = task.facts(prediction)
        return [Scored(score, facts.keys() <= gold_facts.keys())] if facts else []
    found = []
    for field in dataclasses.fields(prediction):
        items = getattr(prediction, field.name)
        for item in items if isinstance(items, list) else ():
            number = getattr(item, "score", getattr(item, "probability", None))
            if number is not None:
                alone = replace(prediction, **{field.name: [item]})
                found.append(Scored(number, task.facts(alone).keys() <= gold_facts.keys()))
    return found


def probabilities(scores: np.ndarray) -> np.ndarray:
    """The scores (facts,) as probabilities (facts,) by the rule in the module docstring."""
    if ((scores >= 0) & (scores <= 1)).all():
        return scores
    if (scores <= 0).all():
        return np.exp(scores)
    return 1 / (1 + np.exp(-np.clip(scores, -500, 500)))


def calibration(facts: Iterable[Scored], bins: int = BINS) -> dict[str, Any]:
    """The bins from the lowest score up, and the expected error; empty without scores."""
    ranked = sorted(facts, key=lambda fact: fact.score)
    if not ranked:
        return {}
    scores = np.array([fact.score for fact in ranked])
    right = np.array([fact.right for fact in ranked], float)
    probability = probabilities(scores)
    found = []
    error = 0.0
    for part in np.array_split(np.arange(len(ranked)), min(bins, len(ranked))):
        gap = abs(probability[part].mean() - right[part].mean())
        error += gap * len(part) / len(ranked)
        found.append(
            {
                "from": round(float(scores[part[0]]), 4),
                "to": round(float(scores[part[-1]]), 4),
                "facts": len(part),
                "probability": round(float(probability[part].mean()), 6),
                "right": round(float(right[part].mean()), 6),
            }
        )
    return {"expected_error": round(float(error), 6), "bins": found}
