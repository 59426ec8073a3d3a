"""The errors a user can cause, each with its exit code.

A message reads `<where>: <what is wrong>[: expected X, got Y][; did you mean Z?]`; the next step
goes into `hint`. Anything that is not an `NlpkitError` is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Iterable


class NlpkitError(Exception):
    """An error with a message for the user, the exit code of the process and, if there is one, the
    next step."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint


class SettingsError(NlpkitError):
    """A wrong option, setting, run directory or encoder: exit 2."""

    exit_code = 2


class DataError(NlpkitError):
    """Bad input data: exit 3."""

    exit_code = 3


class RecordError(DataError):
    """One record is wrong; whoever knows its place adds it with `at`."""

    def at(self, where: str) -> DataError:
        """The same error with its place in front; `where` is `file:line`."""
        return DataError(f"{where}: {self.message}", self.hint)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` where a known word is near, else an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


class _Short(reprlib.Repr):
    """`repr` in bounded time and length, however deep or long the value is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = 4
        self.maxstring = self.maxother = 60

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to print integers of more than 4,300 digits."""
        return repr(x) if x.bit_length() <= 200 else f"an integer of {x.bit_length()} bits"


shown: Callable[[object], str] = _Short().repr
"""A value of a user as messages show it: in short, however deep, long or large it is."""
