"""`nlpkit encoder`: what a checkpoint really is, and how one is made."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.convert import convert
from cli.pretrain import pretrain
from cli.report_table import show
from cli.tree import tree

app = typer.Typer(help="Inspect, pretrain and convert encoders.", no_args_is_help=True)
app.command()(pretrain)
app.command()(convert)
app.command()(tree)


@app.callback()
def encoder() -> None:
    """Inspect, pretrain and convert encoders."""


@app.command()
def info(
    source: Annotated[
        str, typer.Argument(help="An encoder that ships, a checkpoint directory, or a hub id.")
    ],
    pickle: Annotated[
        bool, typer.Option("--pickle", help="Read pytorch_model.bin too (tensors only).")
    ] = False,
) -> None:
    """What a checkpoint really is: read from its tensors, not from its name; JSON when piped, else
    a table."""
    from nlpkit.encoders import names
    from nlpkit.encoders.catalogue import describe, describe_own
    from nlpkit.encoders.checkpoint.load import inspect
    from nlpkit.encoders.checkpoint.own import own_spec

    if source in names():
        show(describe(source))
    elif own_spec(Path(source)) is not None:
        show(describe_own(source))
    else:
        show(asdict(inspect(source, pickle=pickle)))


@app.command("list")
def list_() -> None:
    """The encoders that come with the package: what they are, and what they were made from."""
    from nlpkit.encoders.catalogue import shipped

    show(shipped())
