"""The body of a request within its limits, and the lines in it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request

from nlpkit.errors import RecordError
from nlpkit.json_value import parse_json
from nlpkit.jsonl import Line, array_elements, numbered_lines

MOST_LINES = 100_000  # of a request; more of them come in several requests
WHERE = "request"
_LINE_ENDS = re.compile(rb"[\r\n]")  # in JSON they stand between tokens only


@dataclass
class Bodies:
    """Reads bodies; `held` counts the bytes of those that are in memory.

    Args:
        most: bytes of one body, at most.
        most_held: bytes of all, at most; beyond it requests are turned away.
        seconds: in which a body must have come.
    """

    most: int
    most_held: int
    seconds: float
    held: int = 0

    async def read(self, request: Request) -> bytes:
        """The whole body; the caller gives it back with `release`.

        Raises HTTPException: 413 too large, 408 too slow, 503 where too much is held.
        """
        promised = request.headers.get("content-length", "0")
        if promised.isdecimal() and int(promised) > self.most:
            raise self._too_large()
        body = bytearray()
        try:
            with anyio.fail_after(self.seconds):
                async for chunk in request.stream():
                    self._hold(len(body), len(chunk))
                    body += chunk
        except TimeoutError:
            self.release(body)
            raise HTTPException(408, f"body: expected within {self.seconds:g} s") from None
        except BaseException:
            self.release(body)
            raise
        return bytes(body)

    def release(self, body: bytes | bytearray) -> None:
        """The body is no longer in memory."""
        self.held -= len(body)

    def _hold(self, size: int, more: int) -> None:
        if size + more > self.most:
            raise self._too_large()
        if self.held + more > self.most_held:
            raise HTTPException(503, "too many requests at once", {"Retry-After": "1"})
        self.held += more

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"body: expected at most {self.most} bytes")


async def lines_of(body: bytes, is_json: bool) -> Iterator[Line]:
    """The lines of a body: of JSON lines as a file has them; of JSON, one for the object or for
    each element of the list, numbered from 1.

    Raises HTTPException: 400 where it is no JSON at all, 413 where the lines are too many.
    """
    if is_json:
        lines = await anyio.to_thread.run_sync(_json_lines, body)
        return iter(lines)
    if body.count(b"\n") > MOST_LINES:
        raise _too_many()
    return numbered_lines(io.BytesIO(body), WHERE)


def _json_lines(body: bytes) -> list[Line]:
    try:
        value = parse_json(body)
    except RecordError as error:
        raise HTTPException(400, f"{error.message}; JSON lines are application/x-ndjson") from None
    flat = _LINE_ENDS.sub(b" ", body).strip()
    elements = [flat]
    if isinstance(value, list):
        if len(value) > MOST_LINES:
            raise _too_many()
        elements = list(array_elements(flat))
    return [Line(f"{WHERE}:{number}", number, raw) for number, raw in enumerate(elements, 1)]


def _too_many() -> HTTPException:
    return HTTPException(413, f"body: expected at most {MOST_LINES} lines")
