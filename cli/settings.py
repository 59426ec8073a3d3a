"""`nlpkit settings`: every `--set` key with its type, range, default and docstring."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import write_json
from nlpkit.errors import SettingsError, did_you_mean

if TYPE_CHECKING:
    from cli.settings_source import Setting


def settings(
    section: Annotated[
        str | None,
        typer.Argument(
            help="A task, train, encoder or pretrain; default: all. Or techniques, wrappers, "
            "balance: what these settings of train may call."
        ),
    ] = None,
) -> None:
    """List every setting with type, range, default and meaning: a table, or JSON when piped."""
    from cli.settings_source import CALLS, read_calls, read_settings

    if section in CALLS:
        _tell(list(read_calls(section)))
        return
    found = list(read_settings())
    names = sorted({setting.key.partition(".")[0] for setting in found})
    if section is not None:
        wanted = section.replace("-", "_")
        if wanted not in names:
            near = did_you_mean(wanted, [*names, *CALLS])
            hint = f"sections: {', '.join([*names, *CALLS])}"
            raise SettingsError(f'no section "{section}"{near}', hint=hint)
        found = [setting for setting in found if setting.key.startswith(f"{wanted}.")]
    _tell(found)


def _tell(found: list[Setting]) -> None:
    if sys.stdout.isatty():
        show(found)
    else:
        write_json(*[vars(setting) for setting in found])


def show(found: list[Setting]) -> None:
    """A table for each class of settings."""
    from rich.markup import escape
    from rich.table import Table

    from cli.console import console

    for of in dict.fromkeys(setting.of for setting in found):
        table = Table("setting", "type", "default", "what", title=of, title_justify="left")
        for setting in found:
            if setting.of == of:
                kind = setting.type + (f", {setting.range}" if setting.range else "")
                row = (setting.key, kind, setting.default, setting.what)
                table.add_row(*map(escape, row))
        console().print(table)
