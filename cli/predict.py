"""`nlpkit predict`: a Unix filter, JSONL in, the same lines out with `prediction` added."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.options import BatchSize, Device, TaskSettings
from cli.output import write
from cli.seeds import each_run
from nlpkit.errors import NlpkitError

Option = typer.Option


def predict(
    run: Annotated[Path, typer.Argument(help="A run directory; an encoder fills in [MASK].")],
    file: Annotated[str, typer.Argument(help="JSONL, also .gz and .xz; - is stdin.")] = "-",
    output: Annotated[
        Path | None, Option("--output", "-o", help="A file instead of stdout, atomic.")
    ] = None,
    set_: TaskSettings = None,
    only_output: Annotated[bool, Option(help="Write the predictions alone.")] = False,
    kb: Annotated[
        str | None, Option(help="Another knowledge base than that of the training.")
    ] = None,
    batch_size: BatchSize = 64,
    on_error: Annotated[
        Literal["fail", "skip", "emit"], Option(help="What to do with a bad line.")
    ] = "fail",
    long: Annotated[
        Literal["fail", "split", "cut"], Option(help="What to do with a text too long.")
    ] = "split",
    unbuffered: Annotated[bool, Option(help="Predict line by line.")] = False,
    all_: Annotated[
        bool, Option("--all", help="Of a folder of seeds every run, to a folder -o; else the best.")
    ] = False,
    device: Device = "auto",
) -> int:
    """Add predictions to the lines of a file or pipe, in their order; every other field stays as it
    is."""
    if all_:
        return each_run(predict, {**locals(), "all_": False}, "output")
    from cli.console import LinesDisplay
    from nlpkit.config import parse_pairs
    from nlpkit.inference.filter import Filter
    from nlpkit.inference.opening import Opening
    from nlpkit.jsonl import check_readable, check_writable, read_lines, write_atomic

    check_readable(file)
    if output:
        check_writable(output)
    opening = Opening(str(run), device, kb, parse_pairs(set_ or []), batch_size, long)
    display = LinesDisplay()
    filter_ = Filter(opening.predictor(display.batch), on_error, only_output, unbuffered, tell)
    chunks = display.counted(filter_(read_lines(file)), filter_)
    if output:
        with write_atomic(output) as stream:
            stream.writelines(chunks)
    else:
        write(chunks)
    if filter_.cut:
        print(f"{filter_.cut} of {filter_.lines} texts were cut short", file=sys.stderr)
    if filter_.skipped:
        print(f"{filter_.skipped} of {filter_.lines} lines gave no prediction", file=sys.stderr)
    return 4 if filter_.skipped else 0


def tell(error: NlpkitError) -> None:
    """A line that is skipped is named."""
    print(f"skipped: {error.message}", file=sys.stderr)
