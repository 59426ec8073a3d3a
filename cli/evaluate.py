"""`nlpkit eval`: metrics of a run on data, or of a file that `predict` wrote."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import BatchSize, Device, TaskSettings
from cli.seeds import each_run
from nlpkit.errors import SettingsError, did_you_mean

Option = typer.Option


def evaluate(
    run: Annotated[Path | None, typer.Argument(help="A run directory; or use --task.")] = None,
    data: Annotated[str, Option(help="JSONL with gold; with --task also with predictions.")] = "-",
    task: Annotated[
        str | None, Option(help="Score the predictions in --data as this task, without a run.")
    ] = None,
    set_: TaskSettings = None,
    kb: Annotated[
        str | None, Option(help="Another knowledge base than that of the training.")
    ] = None,
    by: Annotated[
        str | None, Option(help="Also metrics by group, e.g. predicate or label.")
    ] = None,
    errors: Annotated[
        Path | None, Option(help="Write the lines with errors here, each with its kind.")
    ] = None,
    calibration: Annotated[
        bool, Option("--calibration", help="Also how often scores of every height are right.")
    ] = False,
    all_: Annotated[
        bool, Option("--all", help="Of a folder of seeds every run, a line each; else the best.")
    ] = False,
    min_: Annotated[
        list[str] | None, Option("--min", help="A gate, e.g. f1=0.8: below it the exit code is 5.")
    ] = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
) -> int:
    """Score a run, or a file of predictions: JSON on stdout where it is piped, a table for
    people."""
    if all_:
        options = {**locals(), "all_": False}
        return each_run(evaluate, options, "errors")
    from cli.console import show_metrics
    from nlpkit.evaluation.scoring import (
        Scoring,
        predicted_pairs,
        run_pairs,
        scoring_task,
        with_answers,
    )
    from nlpkit.inference.seeds import best_run
    from nlpkit.jsonl import check_readable, check_writable

    gates = [parse_gate(gate) for gate in min_ or []]
    if (run is None) == (task is None):
        raise SettingsError(
            "eval takes a run directory or --task", hint="nlpkit eval RUN --data FILE"
        )
    check_readable(data)
    if errors:
        check_writable(errors)
    run = run and best_run(run)
    scorer, loaded = scoring_task(run, task, set_ or [], device, kb)
    pairs = run_pairs(loaded, data, batch_size) if loaded else predicted_pairs(scorer, data)
    metrics = Scoring(scorer, by, errors, calibration).score(
        with_answers(scorer, pairs, batch_size, device)
    )
    show_metrics({**({"run": str(run)} if run else {}), "data": data, **metrics})
    return check_gates(gates, metrics)


def parse_gate(gate: str) -> tuple[str, float]:
    """`f1=0.8` as ("f1", 0.8). Raises SettingsError."""
    name, _, least = gate.partition("=")
    try:
        number = float(least)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise SettingsError(f'--min: expected metric=number, got "{gate}"')
    return name, number


def check_gates(gates: list[tuple[str, float]], metrics: dict[str, Any]) -> int:
    """5 where a metric lies below its gate, else 0. Raises SettingsError for a metric that is
    none."""
    code = 0
    for name, least in gates:
        if not isinstance(metrics.get(name), (int, float)):
            raise SettingsError(
                f'--min: no number "{name}"{did_you_mean(name, metrics.keys() - {name})}'
            )
        if metrics[name] < least:
            print(f"gate not met: {name} {metrics[name]} < {least}", file=sys.stderr)
            code = 5
    return code
