"""`nlpkit encoder`: what a checkpoint really is, and how one is made."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import write_json
from cli.pretrain import pretrain
from cli.tree import tree

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(help="Inspect and pretrain encoders.", no_args_is_help=True)
app.command()(pretrain)
app.command()(tree)


@app.callback()
def encoder() -> None:
    """Inspect and pretrain encoders."""


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


def show(report: dict[str, Any]) -> None:
    """JSON on stdout where it is piped, a table on stderr where a person looks."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console(stderr=True).print(_table(report))
    else:
        write_json(report)


def _table(report: dict[str, Any]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False)
    for key, value in report.items():
        table.add_row(key, escape(_text(value)))
    return table


def _text(value: Any) -> str:
    """A list or dict goes on a line per entry, a list is cut after ten."""
    if isinstance(value, dict):
        return "\n".join(f"{key} {_text(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        more = [f"... {len(value) - 10} more"] if len(value) > 10 else []
        return "\n".join([str(entry) for entry in value[:10]] + more) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
