"""JSON lines in and out: UTF-8 whatever the locale, `.gz` and `.xz` read as they are, files written
atomically.

A line travels as the bytes the user gave. A prediction is spliced into those bytes, so that every
other field, number and big integer comes out exactly as it came in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import glob
import gzip
import json
import lzma
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import orjson

from nlpkit.errors import DataError, NlpkitError, RecordError, shown
from nlpkit.json_value import STRING, decoded, parse_json

BOM = b"\xef\xbb\xbf"
_TOKEN = re.compile(STRING + rb"|[{}\[\],:]")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of input: its place (`file:line`, counted from 1), its number, and its bytes without
    the line end."""

    where: str
    number: int
    raw: bytes

    def record(self) -> dict[str, Any]:
        """The JSON object of the line. Raises RecordError where it is not one."""
        record = parse_json(self.raw)
        if not isinstance(record, dict):
            raise RecordError(f"expected a JSON object, got {type(record).__name__}")
        return record

    def record_here(self) -> dict[str, Any]:
        """As `record`, but the error is a DataError with the place in it."""
        try:
            return self.record()
        except RecordError as error:
            raise error.at(self.where) from None

    def text(self) -> str:
        """The line as text. Raises DataError, with the place, where it is not UTF-8."""
        try:
            return decoded(self.raw)
        except RecordError as error:
            raise error.at(self.where) from None


def read_text(path: str | Path, error: type[NlpkitError] = DataError) -> str:
    """The whole text of a file, with `\\n` as line end and without a byte order mark.

    Raises `error` where the file cannot be read or, naming the line, is not UTF-8.
    """
    try:
        with open_binary(path) as stream:
            raw = stream.read().removeprefix(BOM)
        lines = [
            Line(f"{path}:{number}", number, line).text()
            for number, line in enumerate(raw.split(b"\n"), 1)
        ]
    except DataError as found:
        raise error(found.message, found.hint) from None
    return "\n".join(line.removesuffix("\r") for line in lines)


def open_binary(path: str | Path) -> IO[bytes]:
    """Opens a file for reading, decompressing `.gz` and `.xz`; `-` is stdin. Raises DataError where
    it can't."""
    openers: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
    try:
        if str(path) == "-":
            # not sys.stdin: at its end the interpreter locks that one, and aborts where a thread
            # still waits for input
            return open(0, "rb", closefd=False)
        return openers.get(Path(path).suffix, open)(path, "rb")
    except OSError as error:
        raise _unreadable(name_of(path), error) from None


def name_of(path: str | Path) -> str:
    """How messages call a file."""
    return "stdin" if str(path) == "-" else str(path)


def check_readable(path: str | Path) -> None:
    """Raises DataError where `read_lines` could not begin, before anything slow is done. A named
    pipe is not opened: its writer would take the end of that for the end of its reader."""
    if str(path) == "-" or Path(path).is_dir() or not os.access(path, os.R_OK):
        open_binary(path)


def _unreadable(name: str, error: OSError) -> DataError:
    return DataError(f"{name}: cannot be read: {error.strerror or error}")


def read_lines(path: str | Path) -> Iterator[Line]:
    """The lines of a file, blank ones left out. A byte order mark and `\\r\\n` are accepted."""
    name = name_of(path)
    with contextlib.ExitStack() as stack:
        stream = open_binary(path)
        if str(path) != "-":
            stack.enter_context(stream)
        try:
            yield from numbered_lines(stream, name)
        except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{name}: damaged archive: {error}") from None
        except OSError as error:
            raise _unreadable(name, error) from None


def numbered_lines(stream: Iterable[bytes], name: str) -> Iterator[Line]:
    """The lines of an open file, as `read_lines` gives them; `name` is what messages call it."""
    for number, raw in enumerate(stream, 1):
        if number == 1 and raw.startswith(BOM):
            raw = raw[len(BOM) :]
        raw = raw.strip()
        if raw:
            yield Line(f"{name}:{number}", number, raw)


def read_jsonl(paths: str | Path | Iterable[str | Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, record) of every line of one file or several. Raises DataError at the first line that
    is no object."""
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        for line in read_lines(path):
            yield line.where, line.record_here()


def dumps(value: Any) -> bytes:
    """Compact JSON; dataclasses, numpy scalars and tuples are understood; non-ASCII text stays as
    it is."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # an integer beyond 64 bits; a lone surrogate, as in a file name that is not
        return json.dumps(value, default=_plain).encode()  # UTF-8 to this locale


def _plain(value: Any) -> Any:
    """What orjson understands and `json` does not."""
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Decimal):
        raise DataError(f"a number too large to be written: {shown(value)}")
    return value.tolist()  # of numpy


def with_field(raw: bytes, record: dict[str, Any], key: str, value: Any) -> bytes:
    """The JSON object `raw` with `key` set to `value`, all its other bytes untouched.

    `record` is the parsed `raw`. An old value of the key is removed and the new one goes to the
    end.
    """
    if key in record:
        kept = [field for name, field in _fields(raw) if name != key]
        raw = b"{" + b",".join(kept) + b"}"
        record = {k: v for k, v in record.items() if k != key}
    comma = b"," if record else b""
    return raw[: raw.rindex(b"}")].rstrip() + comma + orjson.dumps(key) + b":" + dumps(value) + b"}"


def _fields(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """The (key, bytes of key and value) pairs of a valid JSON object, keys and values as written,
    without the spaces around them. However deep the values are, it takes no deep recursion."""
    depth = 0
    key = b""
    start = 0  # of the value; 0 where a key comes next
    for match in _TOKEN.finditer(raw):
        token = match[0]
        if depth == 1 and start and token in b",}":
            yield orjson.loads(key), key + b":" + raw[start : match.start()].strip()
            start = 0
        elif depth == 1 and not start:
            if token[:1] == b'"':
                key = token
            elif token == b":":
                start = match.end()
        if token in b"{[":
            depth += 1
        elif token in b"}]":
            depth -= 1


def array_elements(raw: bytes) -> Iterator[bytes]:
    """The elements of a valid JSON array, each as written, without the spaces around it. However
    deep they are, it takes no deep recursion."""
    depth = 0
    start = 0
    for match in _TOKEN.finditer(raw):
        token = match[0]
        if token in b"{[":
            depth += 1
            start = match.end() if depth == 1 else start
        elif token in b"}]":
            depth -= 1
        if (depth == 1 and token == b",") or depth == 0:
            element = raw[start : match.start()].strip()
            start = match.end()
            if element or depth:  # an empty array has none
                yield element


@contextlib.contextmanager
def write_atomic(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under its name only when whole: temporary name, flush, fsync,
    rename.

    Where the block raises, the temporary file goes and an older file of that name stays as it was.
    What a link points to is replaced, not the link; a device or a named pipe is written as it is.
    Raises NlpkitError where the file cannot be written (permission, a full disk).
    """
    path = Path(os.path.realpath(path))
    temporary = _temporary(path)
    try:
        if _is_device(path):
            with open(path, "wb") as stream:
                yield stream
            return
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise NlpkitError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Raises NlpkitError where `write_atomic` could not begin, before anything slow is done."""
    path = Path(os.path.realpath(path))
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not _is_device(path):
            _temporary(path).touch()
            _temporary(path).unlink()
    except OSError as error:
        raise NlpkitError(f"{path}: cannot be written: {error.strerror or error}") from None


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_temporaries(path: str | Path) -> None:
    """Removes what processes left that were killed while they wrote this file."""
    path = Path(os.path.realpath(path))
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)


def _is_device(path: Path) -> bool:
    """Whether it is there and no file, so that it is written as it is."""
    return path.exists() and not path.is_file()


def _sync_folder(folder: Path) -> None:
    """Makes a rename in the folder survive a loss of power, where the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
