"""The entry point, and how an error becomes one line and an exit code.

0 done   1 unexpected failure   2 usage or settings   3 bad input data
4 finished, some lines skipped   5 a quality gate not met   130 Ctrl-C
141 the reader of a pipe went away
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable

from cli.output import ClosedPipe, write
from nlpkit.errors import NlpkitError

HELP = os.path.join(os.path.dirname(__file__), "help.txt")
"""What `nlpkit --help` says on 80 columns and more; a test keeps it equal to what Typer says."""

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


def main() -> None:
    """The entry point of `nlpkit`."""
    sys.exit(run(answer))


def answer() -> int:
    """Does what the arguments say. What a shell asks at a TAB, and the first help, are answered
    without Typer, which takes longer to import than the answer takes to find."""
    match sys.argv[1:]:
        case ["--help"] if is_wide():
            with open(HELP, "rb") as file:
                write([file.read()])
            return 0
        case ["completion", "bash" | "zsh" | "fish", "--", *words] if words:
            from cli.candidates import offer

            return offer(words)
    from cli.app import call

    return call()


def is_wide() -> bool:
    """Whether Typer would wrap a help at its 80 columns, not at the terminal's width."""
    import shutil

    return shutil.get_terminal_size().columns >= 80


def run(command: Callable[[], int]) -> int:
    """Runs a command and returns its exit code; errors of the user's are one line on stderr."""
    open_streams()
    try:
        code = command()
        sys.stdout.flush()
        return code
    except NlpkitError as error:
        _say(f"error: {error.message}", error.hint)
        return error.exit_code
    except KeyboardInterrupt:
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
