"""What every line adds to a metric: the two numbers whose sums make the fraction.

    F1         2 correct / (predicted + gold)
    precision  correct / predicted
    recall     correct / gold
    a mean     sum of the lines' values / lines, or / gold facts
    likelihood, perplexity     exp(sum of log-probabilities / tokens), and exp of it turned round

The task's own `score` stays the judge: numbers whose fraction is not its value are never used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nlpkit.errors import SettingsError, did_you_mean
from nlpkit.evaluation.metrics import Facts, MicroF1
from nlpkit.evaluation.resampling import Counts

Pairs = Sequence[tuple[Any, Any]]  # (gold, prediction) of every line
Fraction = tuple[np.ndarray, np.ndarray]  # above and below the bar, of every line

NEAR = 1e-5  # a metric is rounded to six digits, and so is that of every line
OF_COUNTS: dict[str, Callable[[Facts, Facts], tuple[int, int]]] = {
    "f1": lambda gold, found: (2 * len(gold.keys() & found.keys()), len(gold) + len(found)),
    "precision": lambda gold, found: (len(gold.keys() & found.keys()), len(found)),
    "recall": lambda gold, found: (len(gold.keys() & found.keys()), len(gold)),
}
"""What the facts of a line's gold and of its prediction add."""
OF_TOKENS = {"likelihood": -1.0, "perplexity": 1.0}
"""The sign of the nats of a token in the exponent."""


def line_counts(task: Any, pairs: Pairs, metric: str) -> Counts:
    """What every pair adds above and below the bar of a metric of `task.score`: of one seed.

    Raises SettingsError for a name that is no metric, and for a metric that is no fraction of sums
    over lines (a mean over labels, a measure of all texts at once).
    """
    whole = task.score(pairs)
    numbers = [name for name, value in whole.items() if isinstance(value, (int, float))]
    if metric not in numbers:
        near = did_you_mean(metric, numbers)
        raise SettingsError(
            f'no metric "{metric}"{near}', hint=f"this task has {', '.join(numbers)}"
        )
    for counts in _ways(task, pairs, metric):
        if abs(counts.value - whole[metric]) < NEAR * max(1, abs(whole[metric])):
            return counts
    raise SettingsError(
        f"{metric}: is no sum over lines, so that lines can't tell chance from a difference",
        hint="--metric takes another; nlpkit eval shows them all",
    )


def _ways(task: Any, pairs: Pairs, metric: str) -> Iterator[Counts]:
    """The fractions that a metric may be, those first that take the least time."""
    if metric in OF_COUNTS:
        facts = [(task.facts(gold), task.facts(prediction)) for gold, prediction in pairs]
        above_N, below_N = np.array([OF_COUNTS[metric](*found) for found in facts], float).T
        yield _one_seed(above_N, below_N)
    alone = [task.score([pair]) for pair in pairs]
    if metric in OF_TOKENS:
        tokens_N = np.array([scores.get("tokens", 0) for scores in alone], float)
        nats_N = tokens_N * np.log([scores.get("perplexity", 1.0) for scores in alone])
        yield _one_seed(OF_TOKENS[metric] * nats_N, tokens_N, geometric=True)
    value_N = np.array([scores.get(metric, np.nan) for scores in alone], float)
    known_N = ~np.isnan(value_N)
    value_N = np.where(known_N, value_N, 0.0)
    yield _one_seed(value_N, known_N.astype(float))
    facts_N = np.array([len(task.facts(gold)) for gold, _ in pairs], float)
    yield _one_seed(value_N * facts_N, facts_N)


def _one_seed(above_N: np.ndarray, below_N: np.ndarray, geometric: bool = False) -> Counts:
    return Counts(above_N[None], below_N[None], geometric)


def group_counts(task: Any, pairs: Pairs) -> dict[str, Fraction]:
    """F1 of the facts of every group, in the order of `MicroF1.by_group`: what every pair adds."""
    total = MicroF1()
    alone = []
    for gold, prediction in pairs:
        gold_facts, predicted_facts = task.facts(gold), task.facts(prediction)
        total.add(gold_facts, predicted_facts)
        line = MicroF1()
        line.add(gold_facts, predicted_facts)
        alone.append(line)
    found = {}
    for group in total.by_group():
        above_N = np.array([2.0 * line.correct[group] for line in alone])
        below_N = np.array([float(line.predicted[group] + line.gold[group]) for line in alone])
        found[group] = above_N, below_N
    return found
