"""`nlpkit encoder`: what a checkpoint really is."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

app = typer.Typer(help="Inspect encoders.", no_args_is_help=True)


@app.callback()
def encoder() -> None:
    """Inspect encoders."""


@app.command()
def info(
    source: Annotated[
        str, typer.Argument(help="A checkpoint directory, or the id of a model on the Hugging Face hub.")
    ],
    pickle: Annotated[bool, typer.Option("--pickle", help="Read pytorch_model.bin too (tensors only).")] = False,
) -> None:
    """What a checkpoint really is: read from its tensors, not from its name; JSON when piped, else a table."""
    from nlpkit.encoders.checkpoint import inspect
    from nlpkit.jsonl import dumps

    report = inspect(source, pickle=pickle)
    if sys.stdout.isatty():
        Console(stderr=True).print(_table(asdict(report)))
    else:
        typer.echo(dumps(report))


def _table(report: dict[str, Any]) -> Table:
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
