"""A JSON value from bytes, with its numbers as they are written."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

import orjson

from nlpkit.errors import RecordError

ENCODING_HINT = "write it as UTF-8 first, for example: iconv -f GB18030 -t UTF-8 FILE"


def parse_json(raw: bytes) -> Any:
    """The value of some JSON, whole numbers of any size exact. A number that no float holds, and a
    whole number of more digits than Python reads, becomes a `Decimal`, which no field expects.

    orjson makes a float of an integer beyond 64 bits and refuses a number beyond a float. Where
    one may stand, orjson checks the text with zeros in their places, and Python's own parser
    reads the numbers. Raises RecordError.
    """
    try:
        if not _LARGE.search(raw):
            return orjson.loads(raw)
        orjson.loads(_TOKEN_OR_NUMBER.sub(_small, raw))
        return json.loads(raw, parse_int=_exact, parse_float=_finite)
    except (orjson.JSONDecodeError, json.JSONDecodeError) as error:
        decoded(raw)  # what is not even text is said to be no text
        raise RecordError(f"not valid JSON: {error}") from None
    except RecursionError:
        raise RecordError("not valid JSON: nested too deeply") from None


def decoded(raw: bytes) -> str:
    """UTF-8 bytes as text. Raises RecordError where they are none, as in a file of GBK or
    UTF-16."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        message = f"not UTF-8: byte 0x{raw[error.start]:02x} at byte {error.start + 1} of the line"
        raise RecordError(message, hint=ENCODING_HINT) from None


STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
# One that it finds in a string costs time alone. Every line is searched: a pattern of one branch,
# which begins with a digit, takes a third of the time of one of two.
_LARGE = re.compile(rb"[0-9](?:[0-9]{18}|[eE]\+?[0-9]{3})")
_TOKEN_OR_NUMBER = re.compile(STRING + rb"|[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_MOST_DIGITS = 4300  # that Python reads


def _small(match: re.Match[bytes]) -> bytes:
    """A string, or a number that orjson can read, as it is; 0 for one that it may not."""
    token = match[0]
    return b"0" if token[:1] != b'"' and _LARGE.search(token) and token[:1] != b"0" else token


def _exact(text: str) -> int | Decimal:
    return int(text) if len(text) <= _MOST_DIGITS else Decimal(text)


def _finite(text: str) -> float | Decimal:
    value = float(text)
    return value if math.isfinite(value) else Decimal(text)
