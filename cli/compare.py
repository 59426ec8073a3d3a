"""`nlpkit compare`: whether one system is better than another, or chance made the difference."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import BatchSize, Device, Metric, SystemsData, SystemsTask, TaskSettings
from cli.output import write_json

Option = typer.Option


def compare(
    systems: Annotated[
        list[Path],
        typer.Argument(
            help="Runs, folders of seeds, or files of predictions; the first is the one to beat."
        ),
    ],
    data: SystemsData = None,
    task: SystemsTask = None,
    metric: Metric = None,
    by: Annotated[str | None, Option(help="Also by group, e.g. predicate or label.")] = None,
    differences: Annotated[
        Path | None, Option(help="Write the lines that only one of the first two has right here.")
    ] = None,
    min_gain: Annotated[
        float | None,
        Option(help="A gate, in points (hundredths): exit 5 below it, or where it may be chance."),
    ] = None,
    level: Annotated[
        float,
        Option(
            help="Of the gate, whose p is corrected for several systems, and of intervals: 0.05 makes "
            "95 % intervals."
        ),
    ] = 0.05,
    draws: Annotated[int, Option(min=1, help="Of the bootstrap and of the randomisation.")] = 10000,
    seed: Annotated[int, Option(min=0, help="Of the draws.")] = 1,
    set_: TaskSettings = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
) -> int:
    """Compare systems on the same lines: differences with intervals and p-values; JSON when
    piped."""
    from nlpkit.evaluation.compare import Chance, Comparison, meets_gate
    from nlpkit.evaluation.systems import Asked, read_systems
    from nlpkit.jsonl import write_atomic

    chance = Chance(draws, seed, level)
    asked = Asked(data, task, set_ or [], batch_size, device)
    comparison = Comparison(read_systems(systems, asked), metric, chance)
    result = comparison.result(by)
    if differences is not None:
        with write_atomic(differences) as stream:
            stream.writelines(raw + b"\n" for raw in comparison.disagreements())
    if sys.stdout.isatty():
        show(result)
    else:
        write_json(result)
    if min_gain is None or meets_gate(result, min_gain / 100, level):
        return 0
    print(f"gate not met: a gain of {min_gain} points at level {level}", file=sys.stderr)
    return 5


def show(result: dict[str, Any]) -> None:
    """Tables for a person."""
    from rich.markup import escape
    from rich.table import Table

    from cli.console import console
    from nlpkit.evaluation.compare import corrected_p

    share = f"{100 * (1 - result['level']):g} %"
    err = console()
    table = Table("system", result["metric"], share, "seeds", "sd")
    for system in result["systems"]:
        sd = f"{100 * system['sd']:.2f}" if "sd" in system else ""
        value = f"{100 * system[result['metric']]:.2f}"
        seeds = str(system["seeds"])
        table.add_row(escape(system["system"]), value, between(system["interval"]), seeds, sd)
    err.print(table)
    if not result["differences"]:
        return
    columns = ("points", share, "p boot", "p rand", "p Holm", "lines + / -")
    table = Table("difference from the first", *columns)
    for found in result["differences"]:
        lines = f"{found['right_only_in_second']} / {found['right_only_in_first']}"
        p_values = (found["p_bootstrap"], found["p_randomisation"], corrected_p(found))
        change = f"{100 * found['difference']:+.2f}"
        row = [escape(found["second"]), change, between(found["interval"])]
        row += [f"{p_value:.4f}" for p_value in p_values]
        table.add_row(*row, lines)
    err.print(table)
    for found in result["differences"]:
        if "by" in found:
            err.print(groups_table(escape(found["second"]), found["by"].items(), share))


def groups_table(name: str, groups: Iterable[tuple[str, dict[str, Any]]], share: str) -> Any:
    """F1 of the groups of a difference."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(name, "first", "second", "points", share, "p", "lines")
    for group, found in groups:
        values = [f"{100 * found[key]:.2f}" for key in ("first", "second")]
        change = f"{100 * found['difference']:+.2f}"
        p_value = f"{found['p_bootstrap']:.4f}"
        lines = str(found["lines"])
        table.add_row(escape(group), *values, change, between(found["interval"]), p_value, lines)
    return table


def between(interval: list[float]) -> str:
    """An interval in points."""
    return f"{100 * interval[0]:.2f} .. {100 * interval[1]:.2f}"
