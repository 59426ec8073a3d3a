"""A report with names and values: JSON where it is piped, a table where a person looks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from cli.output import write_json

if TYPE_CHECKING:
    from rich.table import Table


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
