"""JSON lines in and out: UTF-8 whatever the locale, `.gz` and `.xz` read as they are, files written
atomically.

A line travels as the bytes the user gave. A prediction is spliced into those bytes, so that every
other field, number and big integer comes out exactly as it came in.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from nlpkit.errors import DataError, NlpkitError, RecordError

BOM = b"\xef\xbb\xbf"
ENCODING_HINT = "write it as UTF-8 first, for example: iconv -f GB18030 -t UTF-8 FILE"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of input: its place (`file:line`, counted from 1), its number, and its bytes without
    the line end."""

    where: str
    number: int
    raw: bytes

    def record(self) -> dict[str, Any]:
        """The JSON object of the line. Raises RecordError where it is not one."""
        try:
            record = orjson.loads(self.raw)
        except orjson.JSONDecodeError as error:
            decoded(self.raw)  # what is not even text is said to be no text
            raise RecordError(f"not valid JSON: {error}") from None
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


def decoded(raw: bytes) -> str:
    """UTF-8 bytes as text. Raises RecordError where they are none, as in a file of GBK or
    UTF-16."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        message = f"not UTF-8: byte 0x{raw[error.start]:02x} at byte {error.start + 1} of the line"
        raise RecordError(message, hint=ENCODING_HINT) from None


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
    if str(path) == "-":
        # not sys.stdin: at its end the interpreter locks that one, and aborts where a thread still
        # waits for input
        return open(0, "rb", closefd=False)
    openers: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
    try:
        return openers.get(Path(path).suffix, open)(path, "rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_lines(path: str | Path) -> Iterator[Line]:
    """The lines of a file, blank ones left out. A byte order mark and `\\r\\n` are accepted."""
    name = "stdin" if str(path) == "-" else str(path)
    with contextlib.ExitStack() as stack:
        stream = open_binary(path)
        if str(path) != "-":
            stack.enter_context(stream)
        try:
            for number, raw in enumerate(stream, 1):
                if number == 1 and raw.startswith(BOM):
                    raw = raw[len(BOM) :]
                raw = raw.strip()
                if raw:
                    yield Line(f"{name}:{number}", number, raw)
        except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{name}: damaged archive: {error}") from None
        except OSError as error:
            raise DataError(f"{name}: cannot be read: {error.strerror or error}") from None


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
    except TypeError:  # a lone surrogate, as in a file name that is not UTF-8 to this locale
        return json.dumps(value).encode()


def with_field(raw: bytes, record: dict[str, Any], key: str, value: Any) -> bytes:
    """The JSON object `raw` with `key` set to `value`, all its other bytes untouched.

    `record` is the parsed `raw`. An old value of the key is removed and the new one goes to the
    end.
    """
    if key in record:
        raw = b"{" + b",".join(
            f"{json.dumps(k, ensure_ascii=False)}:{v}".encode() for k, v in _fields(raw) if k != key
        )
        raw += b"}"
        record = {k: v for k, v in record.items() if k != key}
    comma = b"," if record else b""
    return raw[: raw.rindex(b"}")].rstrip() + comma + orjson.dumps(key) + b":" + dumps(value) + b"}"


def _fields(raw: bytes) -> Iterator[tuple[str, str]]:
    """The (key, text of the value) pairs of a valid JSON object, values as written."""
    text, decode, skip = raw.decode(), json.JSONDecoder().raw_decode, " \t\r\n,:{"
    position = 0
    while True:
        while text[position] in skip:
            position += 1
        if text[position] == "}":
            return
        key, position = decode(text, position)
        while text[position] in " \t\r\n:":
            position += 1
        start = position
        _, position = decode(text, start)
        yield key, text[start:position]


@contextlib.contextmanager
def write_atomic(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under its name only when whole: temporary name, flush, fsync,
    rename.

    Where the block raises, the temporary file goes and an older file of that name stays as it was.
    What a link points to is replaced, not the link; a device or a named pipe is written as it is.
    Raises NlpkitError where the file cannot be written (permission, a full disk).
    """
    path = Path(os.path.realpath(path))
    is_device = path.exists() and not path.is_file()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if is_device:
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


def _sync_folder(folder: Path) -> None:
    """Makes a rename in the folder survive a loss of power, where the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
