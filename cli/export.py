"""`nlpkit export`: a run whose encoder is an ONNX graph, scored again before it counts."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import BatchSize
from cli.output import write_json
from nlpkit.errors import DataError, SettingsError

Option = typer.Option

TOLERANCE = 0.1  # points
TOLERANCE_INT8 = 1.0


def export(
    run: Annotated[Path, typer.Argument(help="A run directory, or an encoder that fills in.")],
    output: Annotated[Path, Option("--output", "-o", help="The folder to make.")],
    int8: Annotated[
        bool, Option("--int8", help="Weights as 8-bit integers: faster, a little less exact.")
    ] = False,
    data: Annotated[
        Path | None, Option(help="JSONL with gold: score run and export, exit 5 if they differ.")
    ] = None,
    tolerance: Annotated[
        float | None,
        Option(help="Points by which the score may move; default: 0.1, with --int8 1."),
    ] = None,
    batch_size: BatchSize = 64,
) -> int:
    """Write a run with its encoder as an ONNX graph; predict and eval take the folder like a
    run."""
    allowed = _checked(output, data, tolerance, int8)
    from nlpkit.inference import export as exporting
    from nlpkit.inference.seeds import best_run
    from nlpkit.run import load
    from nlpkit.training.folder import new_folder, put_in_place

    loaded = load(best_run(run))
    exporting.check_exportable(loaded)
    new = new_folder(output)
    try:
        exporting.export(loaded, new, int8)
        exported = load(new)
        scores = {}
        if data is not None:
            scores = _scores(loaded, exported, data, batch_size)
            exporting.note_scores(exported, scores)
            moved = 100 * abs(scores["score"] - scores["run_score"])
            if not moved <= allowed:
                print(
                    f"gate not met: {scores['metric']} moved by {moved:.2f} points, from "
                    f"{scores['run_score']} to {scores['score']}: at most {allowed:g} are allowed",
                    file=sys.stderr,
                )
                return 5
        size = sum(path.stat().st_size for path in new.iterdir())
        put_in_place(new, output)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    write_json({"export": str(output), "run": str(run), "int8": int8, "bytes": size, **scores})
    return 0


def _checked(output: Path, data: Path | None, tolerance: float | None, int8: bool) -> float:
    """The tolerance in points. Raises SettingsError or DataError for options that cannot be,
    before anything is loaded."""
    from nlpkit.jsonl import check_readable

    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise SettingsError(f"{output}: exists already", hint="choose another -o")
    if tolerance is not None and data is None:
        raise SettingsError("--tolerance: nothing to score", hint="--data names lines with gold")
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise SettingsError(f"--tolerance: expected points from 0 on, got {tolerance}")
    if data is not None:
        if str(data) == "-" or (data.exists() and not data.is_file()):
            raise DataError(f"--data {data}: expected a file, since it is read twice")
        check_readable(data)
    if tolerance is not None:
        return tolerance
    return TOLERANCE_INT8 if int8 else TOLERANCE


def _scores(loaded: Any, exported: Any, data: Path, batch_size: int) -> dict[str, Any]:
    """What run and export reach on the data, by the metric that picked the checkpoint."""
    from nlpkit.evaluation.scoring import Scoring, run_pairs
    from nlpkit.run_files import file_sha256

    metric = loaded.task.monitor
    values = []
    for one in (loaded, exported):
        found = Scoring(one.task).score(run_pairs(one, str(data), batch_size))
        values.append(float(found[metric]))
    names = {"data": data.name, "data_sha256": file_sha256(data), "metric": metric}
    return {**names, "run_score": values[0], "score": values[1]}
