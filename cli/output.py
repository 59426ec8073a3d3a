"""What commands write on stdout: data and nothing else."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any


class ClosedPipe(Exception):  # noqa: N818
    """The reader of stdout went away. Typer would turn a BrokenPipeError into exit 1."""


def write(chunks: Iterable[bytes]) -> None:
    """Writes and flushes every chunk. Raises ClosedPipe, or OSError where stdout cannot take them
    (a full disk)."""
    for chunk in chunks:
        try:
            _write_whole(chunk)
        except BrokenPipeError:
            raise ClosedPipe from None


def _write_whole(chunk: bytes) -> None:
    """Writes all of a chunk. With PYTHONUNBUFFERED stdout is the bare file, which may take a part
    of it: where a signal comes in between, or the reader of a pipe goes away."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[sys.stdout.buffer.write(rest) :]
    sys.stdout.buffer.flush()


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Within the block nothing gets to stdout, whoever writes: it goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def write_json(*values: Any) -> None:
    """A line of JSON for each value."""
    from nlpkit.jsonl import dumps

    write([b"".join(dumps(value) + b"\n" for value in values)])


def write_records(records: Iterable[dict[str, Any] | str]) -> None:
    """A line of JSON for each record, and texts as they are, some hundred at a time; those before
    an error are written."""
    from nlpkit.jsonl import dumps

    waiting: list[bytes] = []
    try:
        for record in records:
            line = record.encode() if isinstance(record, str) else dumps(record)
            waiting.append(line + b"\n")
            if len(waiting) == 256:
                write([b"".join(waiting)])
                waiting = []
    finally:
        write([b"".join(waiting)])
