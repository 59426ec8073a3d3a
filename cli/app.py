"""Every command of the program."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from cli import (
    compare,
    completion,
    data,
    encoder,
    env,
    evaluate,
    export,
    predict,
    report,
    serve,
    settings,
    tasks,
    train,
    trie,
)
from nlpkit import __version__
from nlpkit.errors import SettingsError

CLICK_ERROR: Any = typer.BadParameter.__mro__[
    2
]  # ClickException, of the installed click or of Typer's own copy

app = typer.Typer(
    name="nlpkit",
    help="Train, predict and evaluate Chinese NLP models on JSONL.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(train.train)
app.command()(predict.predict)
app.command()(serve.serve)
app.command("eval")(evaluate.evaluate)
app.command()(export.export)
app.command()(compare.compare)
app.command()(report.report)
app.command()(tasks.tasks)
app.command()(settings.settings)
app.command()(env.env)
app.command()(completion.completion)
app.add_typer(data.app, name="data")
app.add_typer(encoder.app, name="encoder")
app.add_typer(trie.app, name="trie")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nlpkit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, predict and evaluate Chinese NLP models on JSONL."""


def call() -> int:
    """Runs the command that the arguments of the program name; its exit code. Raises SettingsError
    for arguments that make no sense, KeyboardInterrupt, and whatever the command does."""
    try:
        return app(standalone_mode=False) or 0
    except typer.Abort:
        raise KeyboardInterrupt from None
    except CLICK_ERROR as error:
        if type(error).__name__ != "NoArgsIsHelpError":
            raise SettingsError(error.format_message()) from None
        print(error.format_message(), file=sys.stderr)
        return 2
