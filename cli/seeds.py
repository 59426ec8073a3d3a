"""`--seeds N` and `--all`: the same training from several seeds, and a command on each of its
runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.output import write_json
from nlpkit.errors import SettingsError

if TYPE_CHECKING:
    from nlpkit.training.plan import Plan


def train_seeds(plan: Plan, count: int, train: Callable[..., int]) -> int:
    """Trains `OUT/seed-1` ... `OUT/seed-COUNT`, one after another; the first exit code that is not
    0, else 0.

    `train` takes the plan of a run and the same as options, and writes a line; the last line sums
    the runs up. The same command goes on where
    it was stopped: runs that are finished are told again, not trained again.
    """
    from nlpkit.inference.seeds import seed_folder

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError("--seeds: not under another launcher", hint="use --processes")
    if len(plan.runs) > 1:
        raise SettingsError(
            "--seeds: of one task alone", hint="--seed and --out, one after another"
        )
    if (plan.out / "config.json").exists():
        raise SettingsError(f"{plan.out}: holds a run, not seeds", hint="choose another --out")
    runs = []
    for seed in range(1, count + 1):
        out = seed_folder(plan.out, seed)
        print(f"seed {seed} of {count}: {out}", file=sys.stderr)
        values = (*plan.values, {"train": {"seed": seed}})
        changes = ("--seeds=1", f"--seed={seed}", f"--out={out}")
        code = train(replace(plan, out=out, values=values), *changes)
        if code:
            return code
        runs.append(out)
    write_json(summary(plan.out, runs))
    return 0


def summary(folder: Path, runs: list[Path]) -> dict[str, Any]:
    """The last line: the mean over the seeds of the metric that picks the best checkpoint, their
    standard deviation (of the sample; 0 of one), and the best of them."""
    import statistics

    from nlpkit.inference.seeds import best_run
    from nlpkit.run import read_config

    results = [read_config(run)["result"] for run in runs]
    values = [result["value"] for result in results]
    return {
        "run": str(folder),
        "seeds": len(runs),
        "monitor": results[0]["monitor"],
        "mean": round(statistics.mean(values), 6),
        "sd": round(statistics.stdev(values), 6) if len(values) > 1 else 0.0,
        "best": str(best_run(folder)),
        "value": max(values),
        "seconds": round(sum(result["seconds"] for result in results), 1),
    }


def is_piped(options: dict[str, Any]) -> bool:
    """Whether a command with these options reads stdin, which it can do once only."""
    files = options.get("files", options.get("data"))
    return not files or "-" in (files if isinstance(files, list) else [files])


def each_run(command: Callable[..., int], options: dict[str, Any], *files: str) -> int:
    """A command for every run in the folder `options["run"]`; the largest exit code.

    `files` are options that name a file to write: they name a folder here, in which every run has
    its own, `seed-1.jsonl` ... Raises SettingsError where the folder holds no seeds.
    """
    from nlpkit.inference.seeds import runs_below

    if options["run"] is None or is_piped(options):
        raise SettingsError("--all: expected a folder of seeds and a file, not a pipe")
    if "output" in files and options["output"] is None:
        raise SettingsError("--all: the runs write to files", hint="-o DIR takes one of each")
    runs = runs_below(options["run"])
    if not runs:
        raise SettingsError(f"{options['run']}: no runs of seeds in it", hint="leave out --all")
    code = 0
    for run in runs:
        written = {}
        for name in files:
            if options[name] is not None:
                options[name].mkdir(parents=True, exist_ok=True)
                written[name] = options[name] / f"{run.name}.jsonl"
        code = max(code, command(**{**options, "run": run, **written}))
    return code
