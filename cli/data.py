"""`nlpkit data`: raw data sets to JSONL, made-up data, and what is wrong with a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.folders import modules_of
from cli.options import TaskSettings
from cli.output import write_json, write_records

Option = typer.Option
app = typer.Typer(
    help="Convert, make up and check data.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def convert(
    recipe: Annotated[str, typer.Argument(help=f"One of {', '.join(modules_of('data_recipes'))}.")],
    raw: Annotated[
        list[str] | None, typer.Argument(help="Raw files, also .gz and .xz; default: stdin.")
    ] = None,
    set_: Annotated[
        list[str] | None, Option("--set", help="An option of the recipe: key=value.")
    ] = None,
) -> None:
    """Turn a raw public data set into the JSONL of its task, on stdout."""
    import data_recipes

    options = data_recipes.parse_options(recipe, set_ or [])
    write_records(data_recipes.load(recipe).convert(raw or ["-"], **options))


@app.command()
def sample(
    task: Annotated[str, typer.Argument(help="The task, e.g. gplinker or ner.")],
    count: Annotated[int, Option(min=1, help="Lines.")] = 3000,
    seed: Annotated[int, Option(help="Same seed, same lines.")] = 1,
    kb: Annotated[
        Path | None, Option(help="Where to write the knowledge base that the lines are about.")
    ] = None,
) -> None:
    """Write made-up training data of a task, so that everything can be tried at once."""
    from nlpkit import samples
    from nlpkit.jsonl import write_atomic

    if kb is not None:
        with write_atomic(kb) as stream:
            stream.writelines(
                line.encode() + b"\n" for line in samples.knowledge_base(task, count, seed)
            )
    write_records(samples.records(task, count, seed))


@app.command()
def check(
    task: Annotated[str, typer.Argument(help="The task, e.g. gplinker or ner.")],
    file: Annotated[str, typer.Argument(help="JSONL as for training.")],
    dev: Annotated[
        str | None, Option(help="Also look for its lines in FILE, and for labels FILE has not.")
    ] = None,
    kb: Annotated[str | None, Option(help="The knowledge base of a task that has one.")] = None,
    encoder: Annotated[str, Option(help="Whose tokenizer to check with.")] = "tiny",
    set_: TaskSettings = None,
) -> int:
    """Report gold that training can never see, by file and line; a summary as JSON on stdout."""
    from nlpkit.evaluation.data_check import check_data

    checking = check_data(task, file, dev, encoder, set_ or [], kb)
    for where, kind, message in checking:
        print(f"{where}: {kind}: {message}", file=sys.stderr)
    write_json(checking.summary())
    return 3 if checking.unreadable or checking.problem else 0
