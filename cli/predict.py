"""`nlpkit predict`: a Unix filter, JSONL in, the same lines out with `prediction` added; or many
files to a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.options import BatchSize, Device, TaskSettings
from cli.output import write
from cli.seeds import each_run
from cli.shards import predict_files, told
from nlpkit.errors import NlpkitError, SettingsError

if TYPE_CHECKING:
    from nlpkit.inference.opening import Opening

Option = typer.Option


def predict(
    run: Annotated[Path, typer.Argument(help="A run directory; an encoder fills in [MASK].")],
    files: Annotated[
        list[str] | None,
        typer.Argument(help="JSONL, also .gz and .xz; - or none is stdin; several need --out."),
    ] = None,
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
    out: Annotated[
        Path | None, Option(help="A folder for one output file an input file; done ones stay.")
    ] = None,
    workers: Annotated[int, Option(min=1, help="Of --out: files done at once.")] = 1,
    engine: Annotated[
        Literal["processes", "ray"], Option(help="Of --out: who works, here or on a cluster.")
    ] = "processes",
    address: Annotated[
        str | None, Option(help="Of --engine ray: the cluster; auto is this machine's.")
    ] = None,
    device: Device = "auto",
) -> int:
    """Add predictions to the lines of a file or pipe, in their order; every other field stays as it
    is."""
    if all_:
        return each_run(predict, {**locals(), "all_": False}, "output")
    from nlpkit.config import parse_pairs
    from nlpkit.inference.opening import Opening

    opening = Opening(str(run), device, kb, parse_pairs(set_ or []), batch_size, long)
    if out is not None:
        if output or unbuffered or not files:
            raise SettingsError("--out: expected files, without --output and --unbuffered")
        return predict_files(opening, files, out, on_error, only_output, workers, engine, address)
    if workers > 1 or engine != "processes" or address is not None:
        raise SettingsError("--workers, --engine and --address: expected --out DIR with them")
    file, *more = files or ["-"]
    if more:
        raise SettingsError(f"expected one file, got {1 + len(more)}", hint="several need --out")
    return filter_lines(opening, file, output, on_error, only_output, unbuffered)


def filter_lines(
    opening: Opening,
    file: str,
    output: Path | None,
    on_error: Literal["fail", "skip", "emit"],
    only_output: bool,
    unbuffered: bool,
) -> int:
    """The filter from a file to another, or to stdout."""
    from cli.console import LinesDisplay
    from nlpkit.inference.filter import Filter
    from nlpkit.jsonl import check_readable, check_writable, read_lines, write_atomic

    check_readable(file)
    if output:
        check_writable(output)
    display = LinesDisplay()
    filter_ = Filter(opening.predictor(display.batch), on_error, only_output, unbuffered, tell)
    chunks = display.counted(filter_(read_lines(file)), filter_)
    if output:
        with write_atomic(output) as stream:
            stream.writelines(chunks)
    else:
        write(chunks)
    return told(filter_.lines, filter_.skipped, filter_.cut)


def tell(error: NlpkitError) -> None:
    """A line that is skipped is named."""
    print(f"skipped: {error.message}", file=sys.stderr)
