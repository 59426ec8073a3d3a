r"""How far chance moves a metric, and the difference of two, by resampling the lines of a test set.

A metric of a set of lines is a fraction of sums, so that two numbers hold all of a line:

    metric = sum_n above_n / sum_n below_n    F1: 2 correct / (predicted + gold); a mean: value / 1

or exp of it (a geometric mean: log-probabilities / tokens).

Paired bootstrap: a draw takes N lines with replacement, the same for every system. The middle part
of the drawn differences is their interval, and p is the share of draws that lie as far from the
difference found as that lies from 0.
Approximate randomisation: a draw swaps the two systems on half of the lines, by chance; p is the
share of draws whose difference is as large as the one found.
Both p are (c + 1) / (draws + 1) of c such draws, two-sided.

Of several comparisons one is small by chance more easily than a single one: `holm` makes their p
such that, whatever is true, the chance that any difference which is none has p <= level is at most
the level.

Where a system was trained from several seeds, its metric is the mean over them, which is uncertain
too: every draw of the bootstrap adds s / sqrt(K) times a value of Student's t with K - 1 degrees of
freedom, s the standard deviation of the seeds (the Behrens-Fisher problem). With two or three seeds
t has long tails, and so has the interval. Randomisation pools the seeds and tells of the lines
alone.

Source: Koehn 2004, aclanthology.org/W04-3250 (bootstrap); Yeh 2000, arxiv.org/abs/cs/0008005
(randomisation); Dror et al. 2018, aclanthology.org/P18-1128; Bestgen 2022,
arxiv.org/abs/2205.11134; Holm 1979, jstor.org/stable/4615733 (several comparisons).
Legend: N lines, K seeds, S systems, D draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ROWS = 256  # draws of the randomisation at once, to bound memory
FEW = 4  # lines are drawn by kind where there are so many times fewer kinds than lines
EQUAL = 1e-12  # differences of floating-point sums that are equal


@dataclass(frozen=True)
class Counts:
    """What every line adds above and below the bar of a system's metric, for each of its seeds;
    `geometric` metrics are exp of the fraction."""

    above_KN: np.ndarray
    below_KN: np.ndarray
    geometric: bool = False

    @property
    def seeds(self) -> int:
        """K, the number of trainings with seeds of their own."""
        return len(self.above_KN)

    @property
    def of_seeds(self) -> np.ndarray:
        """The metric of every seed: (K,)."""
        return self.metric(self.above_KN.sum(1), self.below_KN.sum(1))

    def metric(self, above: Any, below: Any) -> Any:
        """The metric of sums of lines."""
        found = fraction(above, below)
        return np.exp(found) if self.geometric else found

    @property
    def value(self) -> float:
        """The metric: the mean over the seeds."""
        return float(self.of_seeds.mean())

    @property
    def deviation(self) -> float:
        """The standard deviation of the seeds, 0 of one."""
        return float(self.of_seeds.std(ddof=1)) if self.seeds > 1 else 0.0

    @property
    def pooled(self) -> np.ndarray:
        """(above, below) of every line, the mean over the seeds: (N, 2)."""
        return np.stack([self.above_KN.mean(0), self.below_KN.mean(0)], axis=1)

    def of_lines(self, kept_N: np.ndarray) -> Counts:
        """Those of some lines; `kept_N` are booleans."""
        return Counts(self.above_KN[:, kept_N], self.below_KN[:, kept_N], self.geometric)


def fraction(above: Any, below: Any) -> Any:
    """above / below, 0 where below is 0."""
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=np.asarray(below) != 0)


def bootstrap(systems: Sequence[Counts], draws: int, seed: int) -> np.ndarray:
    """The metric of every system in every draw: (D, S). The lines of a draw are those of all
    systems."""
    random = np.random.default_rng(seed)
    columns = [part for counts in systems for part in (counts.above_KN, counts.below_KN)]
    table_NC = np.ascontiguousarray(np.concatenate(columns).T, dtype=np.float64)
    sums_DC = _drawn_sums(table_NC, draws, random)
    metric_DS = np.empty((draws, len(systems)))
    column = 0
    for number, counts in enumerate(systems):
        middle = column + counts.seeds
        end = middle + counts.seeds
        drawn_DK = counts.metric(sums_DC[:, column:middle], sums_DC[:, middle:end])
        metric_DS[:, number] = drawn_DK.mean(1)
        metric_DS[:, number] += _chance_of_seeds(counts, draws, random)
        column = end
    return metric_DS


def _drawn_sums(table_NC: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """The sums over N lines drawn with replacement, in every draw: (D, C).

    Most lines are alike: it is then enough to draw how often each of the different ones comes.
    """
    lines = len(table_NC)
    rows_RC, count_R = np.unique(table_NC, axis=0, return_counts=True)
    sums_DC = np.empty((draws, table_NC.shape[1]))
    for draw in range(draws):
        if len(rows_RC) < lines / FEW:
            sums_DC[draw] = random.multinomial(lines, count_R / lines) @ rows_RC
        else:
            times_N = np.bincount(random.integers(lines, size=lines), minlength=lines)
            sums_DC[draw] = times_N @ table_NC
    return sums_DC


def _chance_of_seeds(counts: Counts, draws: int, random: np.random.Generator) -> np.ndarray:
    """How far the mean of other seeds may lie from that of these: (D,)."""
    if counts.seeds == 1:
        return np.zeros(draws)
    scale = counts.deviation / np.sqrt(counts.seeds)
    return scale * random.standard_t(counts.seeds - 1, size=draws)


def interval(drawn_D: np.ndarray, level: float) -> tuple[float, float]:
    """The middle part of the draws that leaves out the share `level`, half of it on either side."""
    low, high = np.quantile(drawn_D, [level / 2, 1 - level / 2])
    return float(low), float(high)


def bootstrap_p(drawn_D: np.ndarray, difference: float) -> float:
    """The p-value of a difference from the differences that the bootstrap drew."""
    beyond = np.abs(drawn_D - difference) >= abs(difference) - EQUAL
    return float((beyond.sum() + 1) / (len(drawn_D) + 1))


def randomisation_p(first: Counts, second: Counts, draws: int, seed: int) -> float:
    """The p-value of the difference by approximate randomisation."""
    random = np.random.default_rng(seed)
    first_N2 = first.pooled
    second_N2 = second.pooled
    change_R2, count_R = np.unique(second_N2 - first_N2, axis=0, return_counts=True)
    first_2 = first_N2.sum(0)
    second_2 = second_N2.sum(0)
    found = abs(first.metric(*second_2) - first.metric(*first_2)) - EQUAL
    beyond = 0
    for start in range(0, draws, ROWS):
        rows = min(ROWS, draws - start)
        swapped_DR = random.binomial(count_R, 0.5, (rows, len(count_R)))  # of lines that are alike
        moved_D2 = swapped_DR @ change_R2
        first_D = first.metric(*(first_2 + moved_D2).T)
        second_D = first.metric(*(second_2 - moved_D2).T)
        beyond += int((np.abs(second_D - first_D) >= found).sum())
    return (beyond + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several comparisons, corrected for their number m, in the order given.

    The smallest is taken times m, the next times m - 1, and so on; none becomes smaller than one
    before it, or larger than 1.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda n: p_values[n])):
        largest = max(largest, (len(p_values) - rank) * p_values[place])
        corrected[place] = min(largest, 1.0)
    return corrected
