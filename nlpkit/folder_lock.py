"""A folder that one process alone may write."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nlpkit.errors import SettingsError


def beside(folder: Path, what: str) -> Path:
    """A hidden name beside a folder, for something that belongs to it."""
    place = Path(os.path.realpath(folder))
    return place.with_name(f".{place.name}.{what}")


@contextlib.contextmanager
def claimed(folder: Path, is_main: bool = True, what: str = "training") -> Iterator[None]:
    """Within the block no other process may write the folder, on this machine.

    A lock on a file beside the folder says so; the system drops it when the process ends, however
    it ends. With several processes the main one holds it for all. `what` is what writes the folder,
    for the message. Raises SettingsError where another has it, or where nothing can be written.
    """
    if not is_main:
        yield
        return
    path = beside(folder, "lock")
    with _open_locked(path, folder, what):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _open_locked(path: Path, folder: Path, what: str) -> Any:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("wb")
        except OSError as error:
            raise SettingsError(f"{folder}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP):
                return stream  # a file system without locks
            stream.close()
            raise SettingsError(
                f"{folder}: another {what} is writing it",
                hint="wait for it, or choose another --out",
            ) from None
        if path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat()):
            return stream
        stream.close()  # its last owner removed it between the two calls
