"""A report on systems as one file: what was trained on what, curves, differences, and what goes
wrong, shown in the text.

It holds no script and asks for nothing from elsewhere: figures stand in it as SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from nlpkit.evaluation import report_errors
from nlpkit.evaluation.compare import Chance, Comparison, corrected_p
from nlpkit.evaluation.report_errors import points
from nlpkit.evaluation.report_parts import Block, Figure, Section, Series, Table
from nlpkit.evaluation.systems import Asked, System, read_systems
from nlpkit.evaluation.thresholds import LOOSE_THRESHOLD
from nlpkit.inference.seeds import best_run, runs_below
from nlpkit.jsonl import read_jsonl
from nlpkit.run import read_config


def make_sections(sources: Sequence[Path], asked: Asked, metric: str | None) -> list[Section]:
    """The sections of a report on runs, folders of seeds, or files of predictions."""
    comparison = Comparison(read_systems(sources, asked), metric, Chance(draws=2000))
    result = comparison.result()
    loose = [
        _loose(source, asked, system)
        for source, system in zip(sources, comparison.systems, strict=True)
    ]
    sections = [
        _training([source for source in sources if source.is_dir()]),
        _metrics(comparison, result),
        _learning([source for source in sources if source.is_dir()]),
        _differences(result),
        report_errors.groups(comparison),
        report_errors.trust(comparison),
        report_errors.precision_recall(comparison, loose),
        report_errors.lengths(comparison),
        report_errors.confusion(comparison),
    ]
    sections += [report_errors.worst_lines(comparison, n) for n in range(len(sources))]
    return [section for section in sections if section is not None and section.blocks]


def _loose(source: Path, asked: Asked, system: System) -> System | None:
    """The best run of a source with its predictions below the threshold too; None where it has no
    threshold."""
    if not source.is_dir() or getattr(system.task.config, "threshold", None) is None:
        return None
    run = best_run(source)
    if not (run / "config.json").exists():
        return None
    section = read_config(run)["task"]
    settings = [*asked.settings, f"{section}.threshold={LOOSE_THRESHOLD}"]
    (found,) = read_systems(
        [run], Asked(asked.data, asked.task, settings, asked.batch_size, asked.device)
    )
    return found


def _training(sources: Sequence[Path]) -> Section | None:
    """What was trained on what."""
    rows = []
    for source in sources:
        for run in runs_below(source) or [source]:
            config = read_config(run)
            if "data" not in config:
                continue
            train = config["settings"]["train"]
            data = config["data"]
            result = config.get("result", {})
            rows.append(
                [
                    str(run),
                    config["task"],
                    config["encoder"]["name"],
                    ", ".join(data["train"]),
                    data["train_lines"],
                    train["seed"],
                    train["epochs"],
                    train["learning_rate"],
                    result.get("value", ""),
                    f"{result['seconds']:.0f}" if result else "",
                ]
            )
    if not rows:
        return None
    head = ["run", "task", "encoder", "trained on", "lines", "seed", "epochs", "rate"]
    return Section("Training", "", [Table([*head, "on dev", "seconds"], rows)])


def _metrics(comparison: Comparison, result: dict[str, Any]) -> Section:
    """Every metric of every system, and the interval of the one that counts."""
    level = f"{100 * (1 - comparison.chance.level):g} %"
    head = ["system", comparison.metric, f"{level} interval", "seeds", "sd"]
    rows: list[list[Any]] = []
    for found in result["systems"]:
        sd = f"{100 * found['sd']:.2f}" if "sd" in found else ""
        value = points(found[comparison.metric])
        rows.append([found["system"], value, between(found["interval"]), found["seeds"], sd])
    scores = []
    for number, system in enumerate(comparison.systems):
        scores.append(system.task.score(report_errors.best_pairs(comparison, number)))
    every = []
    for name in dict.fromkeys(chain.from_iterable(scores)):
        every.append([name, *(one.get(name, "") for one in scores)])
    table = Table(["metric", *(system.name for system in comparison.systems)], every)
    note = f"On {len(comparison.systems[0].lines)} lines; above, shares in points (hundredths)."
    return Section("Metrics", note, [Table(head, rows), table])


def _learning(sources: Sequence[Path]) -> Section | None:
    """The metric on dev after every evaluation."""
    series = []
    monitor = ""
    for source in sources:
        for run in runs_below(source) or [source]:
            history = [record for _, record in _history(run)]
            monitor = read_config(run).get("result", {}).get("monitor", monitor)
            if monitor and history:
                x = [record["epoch"] for record in history]
                series.append(Series(str(run), x, [record[monitor] for record in history]))
    if not series:
        return None
    figure = Figure(f"{monitor} on dev while training.", "epoch", monitor, series)
    return Section("Learning curve", "", [figure])


def _history(run: Path) -> list[tuple[str, dict[str, Any]]]:
    path = run / "metrics.jsonl"
    return list(read_jsonl(path)) if path.exists() else []


NOTE = (
    "Paired over lines; 1 point is 0.01. p Holm: the larger of the two p-values, corrected for the "
    "number of comparisons. Lines: those that only the system has right, and only the other."
)


def _differences(result: dict[str, Any]) -> Section | None:
    """Whether the systems differ."""
    if not result["differences"]:
        return None
    head = ["system", "against", "points", "interval", "p bootstrap", "p randomisation", "p Holm"]
    head += ["lines + / -"]
    rows = []
    for found in result["differences"]:
        change = f"{100 * found['difference']:+.2f}"
        p_values = [found["p_bootstrap"], found["p_randomisation"], corrected_p(found)]
        row = [found["second"], found["first"], change, between(found["interval"])]
        row += [f"{p_value:.4f}" for p_value in p_values]
        lines = f"{found['right_only_in_second']} / {found['right_only_in_first']}"
        rows.append([*row, lines])
    blocks: list[Block] = [Table(head, rows)]
    return Section("Differences", NOTE, blocks)


def between(ends: Sequence[float]) -> str:
    """An interval in points."""
    return f"{points(ends[0])} to {points(ends[1])}"
