"""The sections of a report about what the systems get wrong: groups, scores, lengths, confusions,
and lines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from nlpkit.evaluation.calibration import Scored, calibration, scored_facts
from nlpkit.evaluation.compare import Comparison
from nlpkit.evaluation.error_kinds import MISSED, errors_of, parts_of
from nlpkit.evaluation.line_counts import group_counts
from nlpkit.evaluation.report_lines import given_text, shown_line
from nlpkit.evaluation.report_parts import Figure, Section, Series, Table, Texts
from nlpkit.evaluation.resampling import Counts, bootstrap, interval
from nlpkit.evaluation.systems import Pairs, System

GROUPS = 25  # the largest are shown
CONFUSIONS = 25
LINES = 30
LENGTHS = 6  # bins of equal number
DRAWS = 500  # for the interval of a group


def best_pairs(comparison: Comparison, number: int) -> Pairs:
    """The pairs of a system's best seed."""
    return comparison.systems[number].seeds[int(comparison.counts[number].of_seeds.argmax())]


def groups(comparison: Comparison) -> Section:
    """F1 by group with intervals."""
    systems = comparison.systems
    series, rows = [], []
    names: list[str] = []
    for number, system in enumerate(systems):
        counts = group_counts(system.task, best_pairs(comparison, number))
        names = names or list(counts)[:GROUPS]
        found = [_group_interval(counts.get(name), comparison.chance.level) for name in names]
        values, lows, highs = zip(*found, strict=True)
        series.append(Series(system.name, names, values, lows, highs))
        rows += [
            [system.name, name, *map(points, some)] for name, some in zip(names, found, strict=True)
        ]
    group = systems[0].task.group
    caption = f"F1 by {group}, the largest groups first, with intervals over lines."
    figure = Figure(caption, "", "F1", series, "bars")
    return Section(f"By {group}", "", [figure, Table(["system", group, "F1", "from", "to"], rows)])


def _group_interval(counts: Any, level: float) -> tuple[float, float, float]:
    if counts is None:
        return 0.0, 0.0, 0.0
    above_N, below_N = counts
    has_N = below_N > 0
    one = Counts(above_N[None, has_N], below_N[None, has_N])
    low, high = interval(bootstrap([one], DRAWS, 1)[:, 0], level)
    return one.value, low, high


def trust(comparison: Comparison) -> Section | None:
    """Whether scores are right as often as they say."""
    series, rows = [], []
    for number, system in enumerate(comparison.systems):
        found = calibration(_scored(system.task, best_pairs(comparison, number)))
        if not found:
            continue
        bins = found["bins"]
        x = [one["probability"] for one in bins]
        series.append(Series(system.name, x, [one["right"] for one in bins]))
        error = points(found["expected_error"])
        rows.append([system.name, sum(one["facts"] for one in bins), error])
    if not series:
        return None
    caption = "Share of right predictions against what their scores say; dotted: as it should be."
    figure = Figure(caption, "probability by score", "share right", series, diagonal=True)
    return Section("Calibration", "", [figure, Table(["system", "facts", "expected error"], rows)])


def _scored(task: Any, pairs: Pairs) -> list[Scored]:
    found = []
    for gold, prediction in pairs:
        found += scored_facts(task, gold, prediction)
    return found


def precision_recall(comparison: Comparison, loose: Sequence[System | None]) -> Section | None:
    """Precision against recall as the threshold falls; `loose` are the systems with predictions
    below their thresholds too, None where there are none."""
    series, marked, rows = [], [], []
    for number, (system, more) in enumerate(zip(comparison.systems, loose, strict=True)):
        source = more or system
        pairs = source.seeds[0] if more else best_pairs(comparison, number)
        curve = _curve(source.task, pairs)
        if curve is None:
            continue
        score_M, precision_M, recall_M = curve
        kept = np.unique(np.linspace(0, len(score_M) - 1, 200).astype(int))
        series.append(Series(system.name, recall_M[kept].tolist(), precision_M[kept].tolist()))
        threshold = getattr(system.task.config, "threshold", None)
        if threshold is not None and (score_M > threshold).any():
            last = int((score_M > threshold).sum()) - 1
            point = float(recall_M[last]), float(precision_M[last])
            marked.append((*point, f"{threshold:.2f}"))
            rows.append([system.name, f"{threshold:.4f}", *map(points, point[::-1])])
    if not series:
        return None
    caption = "Precision against recall, from the highest score down; a cross marks the threshold."
    blocks: list[Any] = [Figure(caption, "recall", "precision", series, marked=marked)]
    if rows:
        blocks.append(Table(["system", "threshold", "precision", "recall"], rows))
    return Section("Precision and recall", "", blocks)


def _curve(task: Any, pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Scores from the highest down, with precision and recall of the facts down to each: (M,)."""
    ranked = sorted(_scored(task, pairs), key=lambda fact: -fact.score)
    gold = sum(len(task.facts(expected)) for expected, _ in pairs)
    if len(ranked) < 2 or not gold:
        return None
    right_M = np.cumsum([fact.right for fact in ranked])
    score_M = np.array([fact.score for fact in ranked])
    return score_M, right_M / np.arange(1, len(ranked) + 1), right_M / gold


def lengths(comparison: Comparison) -> Section:
    """The metric against the length of what the model was given."""
    lines = comparison.systems[0].lines
    length_N = np.array([len(given_text(line.record())) for line in lines])
    bins = np.array_split(np.argsort(length_N, kind="stable"), min(LENGTHS, len(lines)))
    series, rows = [], []
    for system, counts in zip(comparison.systems, comparison.counts, strict=True):
        x = [float(length_N[some].mean()) for some in bins]
        y = []
        for some in bins:
            above, below = counts.above_KN[:, some].sum(1), counts.below_KN[:, some].sum(1)
            y.append(float(counts.metric(above, below).mean()))
            span = f"{length_N[some].min()} to {length_N[some].max()}"
            rows.append([system.name, span, len(some), points(y[-1])])
        series.append(Series(system.name, x, y))
    metric = comparison.metric
    caption = f"{metric} against the length of the input, in bins of equally many lines."
    figure = Figure(caption, "characters", metric, series)
    return Section(
        "By length of the input",
        "",
        [figure, Table(["system", "characters", "lines", metric], rows)],
    )


def confusion(comparison: Comparison) -> Section:
    """Kinds of errors, and which types are taken for which."""
    names = [system.name for system in comparison.systems]
    kinds: list[Counter[str]] = []
    taken: list[Counter[tuple[str, str]]] = []
    for number, system in enumerate(comparison.systems):
        kinds.append(Counter())
        taken.append(Counter())
        for gold, prediction in best_pairs(comparison, number):
            gold_facts, found_facts = system.task.facts(gold), system.task.facts(prediction)
            for error in errors_of(gold_facts, found_facts, system.task.group):
                kinds[-1][error["kind"]] += 1
                if "gold" in error and "predicted" in error:
                    one = parts_of(error["gold"], gold_facts[error["gold"]]).type
                    other = parts_of(error["predicted"], found_facts[error["predicted"]]).type
                    if one != other:
                        taken[-1][_name(one), _name(other)] += 1
    all_kinds = sorted(set[str]().union(*kinds), key=lambda kind: -kinds[0][kind])
    rows = []
    for kind in all_kinds:
        rows.append([kind, *(some[kind] for some in kinds)])
    blocks: list[Any] = [Table(["kind", *names], rows)]
    total: Counter[tuple[str, str]] = sum(taken, Counter())
    if total:
        rows = []
        for pair, _ in total.most_common(CONFUSIONS):
            rows.append([*pair, *(some[pair] for some in taken)])
        blocks.append(Table(["gold", "predicted", *names], rows))
    return Section(
        "Kinds of errors", "Numbers of errors; below, which type is taken for which.", blocks
    )


def _name(kind: Any) -> str:
    return " ".join(map(str, kind)) if isinstance(kind, tuple) else str(kind)


def worst_lines(comparison: Comparison, number: int) -> Section:
    """The lines with the most errors, in the text. Of equally many those that were surest."""
    system = comparison.systems[number]
    ranked = []
    for index, (gold, prediction) in enumerate(best_pairs(comparison, number)):
        task = system.task
        errors = errors_of(task.facts(gold), task.facts(prediction), task.group)
        if errors:
            wrong = [fact.score for fact in scored_facts(task, gold, prediction) if not fact.right]
            missed = sum(error["kind"] == MISSED for error in errors)
            ranked.append((-len(errors), -max(wrong, default=-math.inf), -missed, index))
    shown = []
    for *_, index in sorted(ranked)[:LINES]:
        line = system.lines[index]
        shown.append(
            shown_line(
                system.task, line.where, line.record(), *best_pairs(comparison, number)[index]
            )
        )
    share = f"{len(ranked)} of {len(system.lines)} lines have errors"
    note = f"{share}; the {len(shown)} with the most of them."
    return Section(f"Errors of {system.name}", note, [Texts(shown)])


def points(value: float) -> str:
    """A share in hundredths; what is no share, such as a length, as it is."""
    return f"{100 * value:.2f}" if abs(value) <= 1 else f"{value:.4g}"
