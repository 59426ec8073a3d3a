"""The command line: every command, and how an error becomes one line and an exit code.

0 done   1 unexpected failure   2 usage or settings   3 bad input data
4 finished, some lines skipped   5 a quality gate not met   130 Ctrl-C
141 the reader of a pipe went away
"""

from __future__ import annotations

import contextlib
import errno
import os
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
from cli.output import ClosedPipe
from nlpkit import __version__
from nlpkit.errors import NlpkitError

CLICK_ERROR: Any = typer.BadParameter.__mro__[
    2
]  # ClickException, of the installed click or of Typer's own copy

EXHAUSTED = {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
}
"""What the machine lacks or forbids; it says enough without a traceback."""

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


def main() -> None:
    """The entry point of `nlpkit`."""
    words = completion.asked(sys.argv[1:])

    def answer(standalone_mode: bool) -> None:
        completion.offer(typer.main.get_command(app), words)

    sys.exit(run(answer if words else app))


def run(command: Any) -> int:
    """Runs the app and returns its exit code; errors of the user's are one line on stderr."""
    open_streams()
    try:
        code = command(standalone_mode=False)
        sys.stdout.flush()
        return code or 0
    except NlpkitError as error:
        _say(f"error: {error.message}", error.hint)
        return error.exit_code
    except CLICK_ERROR as error:
        is_help = type(error).__name__ == "NoArgsIsHelpError"
        _say(("" if is_help else "error: ") + error.format_message(), None)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted", None)
        return 130
    except ClosedPipe:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # so that the last flush is silent too
        return 141
    except OSError as error:
        of_file = error.filename is not None or error.errno is None
        if of_file and error.errno not in EXHAUSTED:
            raise
        _say(f"error: {error.filename if of_file else 'output'}: {error.strerror}", None)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate memory" not in str(error):
            raise
        _say("error: not enough memory", "a smaller --batch-size takes less")
        return 1


def open_streams() -> None:
    """UTF-8 whatever the locale; and streams that were closed, as a daemon's, get something in
    their places: what goes to stderr is lost, and reading stdin and writing stdout fail as they
    should.

    Without it the next file that is opened would become the missing stream.
    """
    for number, access in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, access)  # gets the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]


def _say(message: str, hint: str | None) -> None:
    with contextlib.suppress(OSError):  # where stderr takes nothing either
        print(message, file=sys.stderr)
        if hint:
            print(f"hint: {hint}", file=sys.stderr)


if __name__ == "__main__":
    main()
