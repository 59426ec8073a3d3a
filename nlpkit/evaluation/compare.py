"""Whether one system is better than another: metrics with intervals, differences with p-values, by
group, and the lines that only one of them has right.

The first system is the one that the others are compared with; a difference is theirs minus its.
With several others every p-value is told twice, as it is and corrected for their number (Holm); the
gate takes the corrected ones. Those of groups are as they are. For the statistics see `resampling`,
for what a line adds to a metric `line_counts`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from nlpkit.errors import SettingsError
from nlpkit.evaluation.line_counts import Fraction, group_counts, line_counts
from nlpkit.evaluation.resampling import (
    Counts,
    bootstrap,
    bootstrap_p,
    holm,
    interval,
    randomisation_p,
)
from nlpkit.evaluation.systems import System
from nlpkit.jsonl import with_field

P_VALUES = ("p_bootstrap", "p_randomisation")
GROUP_DRAWS = 2000  # of every group: they are many, and their intervals wide


@dataclass(frozen=True)
class Chance:
    """How chance is judged: draws, their seed, and the share `level` of intervals that may miss the
    truth."""

    draws: int = 10_000
    seed: int = 1
    level: float = 0.05

    def __post_init__(self) -> None:
        if self.draws < 1 or not 0 < self.level < 1:
            raise SettingsError("expected at least one draw, and a level between 0 and 1")


class Comparison:
    """Systems on the same lines.

    Args:
        systems: at least one; see `systems.read_systems`.
        metric: a metric of the task's `score`; None for the one that picks the best checkpoint.
        chance: of the intervals and p-values.

    Raises SettingsError where the systems are scored by different rules.
    """

    def __init__(self, systems: Sequence[System], metric: str | None, chance: Chance):
        self.systems = list(systems)
        self.chance = chance
        self.metric = metric or default_metric(systems[0])
        rules = {_rule(system) for system in systems}
        if len(rules) > 1:
            raise SettingsError(f"the systems are scored by several rules: {', '.join(rules)}")
        self.counts = [_counts(system, self.metric) for system in systems]
        self.drawn_DS = bootstrap(self.counts, chance.draws, chance.seed)

    def result(self, by: str | None = None) -> dict[str, Any]:
        """Everything as plain values; `by` is the group of the task, None for no groups. Raises
        SettingsError for another group."""
        group = self.systems[0].task.group
        if by not in (None, group):
            raise SettingsError(f'--by: this task groups by {group}, not by "{by}"')
        others = range(1, len(self.systems))
        differences = [self._difference(number) for number in others]
        for name in P_VALUES:
            corrected = holm([found[name] for found in differences])
            for found, p_value in zip(differences, corrected, strict=True):
                found[f"{name}_holm"] = round(p_value, 6)
        if by is not None:
            for number, difference in zip(others, differences, strict=True):
                difference["by"] = self._by_group(number)
        return {
            "metric": self.metric,
            "lines": len(self.systems[0].lines),
            "draws": self.chance.draws,
            "seed": self.chance.seed,
            "level": self.chance.level,
            "systems": [self._system(number) for number in range(len(self.systems))],
            "differences": differences,
        }

    def _system(self, number: int) -> dict[str, Any]:
        counts = self.counts[number]
        found = {
            "system": self.systems[number].name,
            self.metric: round(counts.value, 6),
            "interval": _rounded(interval(self.drawn_DS[:, number], self.chance.level)),
            "seeds": counts.seeds,
        }
        if counts.seeds > 1:
            found["sd"] = round(counts.deviation, 6)
            found["of_seeds"] = _rounded(counts.of_seeds.tolist())
        return found

    def _difference(self, number: int) -> dict[str, Any]:
        first = self.counts[0]
        second = self.counts[number]
        chance = self.chance
        difference = second.value - first.value
        drawn_D = self.drawn_DS[:, number] - self.drawn_DS[:, 0]
        ahead_N = right_share(second) - right_share(first)
        return {
            "first": self.systems[0].name,
            "second": self.systems[number].name,
            "difference": round(difference, 6),
            "interval": _rounded(interval(drawn_D, chance.level)),
            "p_bootstrap": round(bootstrap_p(drawn_D, difference), 6),
            "p_randomisation": round(randomisation_p(first, second, chance.draws, chance.seed), 6),
            "right_only_in_first": int((ahead_N < -0.5).sum()),
            "right_only_in_second": int((ahead_N > 0.5).sum()),
        }

    def _by_group(self, number: int) -> dict[str, Any]:
        """F1 of the facts of every group, from the lines that have some of it."""
        first = _by_groups(self.systems[0])
        second = _by_groups(self.systems[number])
        found = {}
        for group in dict.fromkeys([*first, *second]):
            pair = [_of_group(first, group), _of_group(second, group)]
            found[group] = self._of_group(pair)
        return found

    def _of_group(self, pair: list[Counts]) -> dict[str, Any]:
        """Both F1 and their difference."""
        has_N = (pair[0].below_KN.sum(0) + pair[1].below_KN.sum(0)) > 0
        first, second = (counts.of_lines(has_N) for counts in pair)
        draws = min(GROUP_DRAWS, self.chance.draws)
        drawn_D2 = bootstrap([first, second], draws, self.chance.seed)
        drawn_D = drawn_D2[:, 1] - drawn_D2[:, 0]
        difference = second.value - first.value
        return {
            "first": round(first.value, 6),
            "second": round(second.value, 6),
            "difference": round(difference, 6),
            "interval": _rounded(interval(drawn_D, self.chance.level)),
            "p_bootstrap": round(bootstrap_p(drawn_D, difference), 6),
            "lines": int(has_N.sum()),
        }

    def disagreements(self) -> Iterator[bytes]:
        """The lines that only the first or only the second system has right, as JSON: the input
        line with `right` and `wrong`, their names, and `predictions`, those of the first seed of
        each."""
        first, second = self.systems[:2]
        ahead_N = right_share(self.counts[1]) - right_share(self.counts[0])
        for index in np.flatnonzero(np.abs(ahead_N) > 0.5).tolist():
            line = first.lines[index]
            right, wrong = (second, first) if ahead_N[index] > 0 else (first, second)
            predictions = {system.name: system.seeds[0][index][1] for system in (first, second)}
            raw = line.raw
            record = line.record()
            added = {"right": right.name, "wrong": wrong.name, "predictions": predictions}
            for key, value in added.items():
                raw = with_field(raw, record, key, value)
                record[key] = value
            yield raw


def right_share(counts: Counts) -> np.ndarray:
    """The share of the seeds that have nothing wrong and nothing missing in a line: (N,)."""
    return (counts.above_KN >= counts.below_KN - 1e-9).mean(0)


def meets_gate(result: dict[str, Any], min_gain: float, level: float) -> bool:
    """Whether every difference is at least `min_gain` (in the metric's unit) with both p-values,
    corrected for the number of differences, at most `level`."""
    for found in result["differences"]:
        may_be_chance = corrected_p(found) > level
        if may_be_chance or found["difference"] < min_gain:
            return False
    return True


def corrected_p(difference: dict[str, Any]) -> float:
    """The larger of the two corrected p-values of a difference."""
    return max(difference[f"{name}_holm"] for name in P_VALUES)


def default_metric(system: System) -> str:
    """The metric that picks the best checkpoint; where files of predictions do not tell it, the
    first that they do."""
    monitor = system.task.monitor
    found = system.task.score(system.seeds[0])
    if monitor in found:
        return monitor
    for name, value in found.items():
        if isinstance(value, float):
            with contextlib.suppress(SettingsError):
                line_counts(system.task, system.seeds[0], name)
                return name
    return monitor


def _rule(system: System) -> str:
    """How its task matches facts."""
    return str(getattr(system.task.config, "match", "strict"))


def _counts(system: System, metric: str) -> Counts:
    """The counts of a metric, of every seed."""
    seeds = [line_counts(system.task, pairs, metric) for pairs in system.seeds]
    above = np.concatenate([counts.above_KN for counts in seeds])
    below = np.concatenate([counts.below_KN for counts in seeds])
    return Counts(above, below, seeds[0].geometric)


def _by_groups(system: System) -> dict[str, Counts]:
    """The counts of F1 of every group, of every seed."""
    seeds = [group_counts(system.task, pairs) for pairs in system.seeds]
    nothing = np.zeros(len(system.lines))
    counts = {}
    for group in dict.fromkeys(chain.from_iterable(seeds)):
        of_seeds = [found.get(group, (nothing, nothing)) for found in seeds]
        counts[group] = _stacked(of_seeds)
    return counts


def _of_group(groups: dict[str, Counts], group: str) -> Counts:
    """The counts of a group; of one that a system knows nothing of, zeros."""
    if group in groups:
        return groups[group]
    like = np.zeros_like(next(iter(groups.values())).below_KN)
    return Counts(like, like)


def _stacked(seeds: Sequence[Fraction]) -> Counts:
    above = np.stack([above_N for above_N, _ in seeds])
    below = np.stack([below_N for _, below_N in seeds])
    return Counts(above, below)


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 6) for value in values]
