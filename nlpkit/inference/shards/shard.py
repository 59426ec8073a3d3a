"""One file of many: predicted whole, written under its own name, and noted when it is done.

    DIR/NAME                     the output, whole or not there
    DIR/_manifests/NAME.json     what it was made from

The unit of work is a file. A worker that is lost before the manifest is there has done nothing; the
file is then done again from its start, to the same bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nlpkit.errors import DataError, NlpkitError, SettingsError
from nlpkit.inference.filter import Filter, OnError
from nlpkit.inference.opening import Opening
from nlpkit.inference.predictor import Predictor
from nlpkit.jsonl import check_readable, read_lines, remove_temporaries, write_atomic
from nlpkit.run_files import file_sha256

MANIFESTS = "_manifests"
TRIES = 4
"""Times that a file is begun where the worker is lost each time."""
MOST_TOLD = 20  # messages of skipped lines that are kept of a file


@dataclass(frozen=True)
class ShardJob:
    """What is to be done with every file; it is sent to the workers."""

    opening: Opening
    out: str
    run_sha256: str
    """That of `opening`, see `Opening.sha256`."""
    on_error: OnError = "fail"
    only_output: bool = False


@dataclass(frozen=True)
class Shard:
    """A file that is done; as JSON, without `told` and `is_old`, its manifest."""

    input: str
    input_sha256: str
    run_sha256: str
    on_error: OnError
    only_output: bool
    output_bytes: int
    lines: int
    skipped: int
    """Lines that gave no prediction."""
    cut: int
    """Texts cut short."""
    seconds: float
    told: list[str] = field(default_factory=list)
    """Messages of the first lines that were left out."""
    is_old: bool = False
    """It was done before."""


Engine = Callable[[ShardJob, Sequence[str], int], Iterator[Shard]]
"""From (job, files, number of workers) to the files that are done, as they are done.

Where a file fails no other is begun; those at work are done, and its error is raised."""


class ShardWorker:
    """Does files one after another; the model is loaded for the first that is not done yet."""

    def __init__(self, job: ShardJob):
        self.job = job
        self._predictor: Predictor | None = None

    def do(self, path: str) -> Shard:
        """Predicts a file. Raises DataError for a bad line under on_error="fail", and where the
        file cannot be read or changes meanwhile."""
        started = time.monotonic()
        output = output_of(self.job, path)
        check_readable(path)
        before = _state_of(path)
        input_sha256 = file_sha256(Path(path))
        old = self._done_before(output, input_sha256)
        if old is not None:
            return old
        for file in (output, _manifest_of(output)):
            remove_temporaries(file)
        told: list[str] = []

        def tell(error: DataError) -> None:
            if len(told) < MOST_TOLD:
                told.append(error.message)

        job = self.job
        filter_ = Filter(self._opened(), job.on_error, job.only_output, on_skip=tell)
        with _written(output) as stream:
            for chunk in filter_(read_lines(path)):
                stream.write(chunk)
            if _state_of(path) != before:
                raise DataError(f"{path}: changed while it was read")
        shard = Shard(
            input=path,
            input_sha256=input_sha256,
            run_sha256=job.run_sha256,
            on_error=job.on_error,
            only_output=job.only_output,
            output_bytes=output.stat().st_size,
            lines=filter_.lines,
            skipped=filter_.skipped,
            cut=filter_.cut,
            seconds=round(time.monotonic() - started, 3),
            told=told,
        )
        _note(output, shard)
        return shard

    def _opened(self) -> Predictor:
        if self._predictor is None:
            self._predictor = self.job.opening.predictor()
        return self._predictor

    def _done_before(self, output: Path, input_sha256: str) -> Shard | None:
        """What the manifest says, where it is of this input, run and way, and the output is
        there."""
        try:
            noted = json.loads(_manifest_of(output).read_bytes())
            shard = replace(Shard(**noted), is_old=True)
            is_whole = output.stat().st_size == shard.output_bytes
        except (OSError, TypeError, ValueError):
            return None
        job = self.job
        wanted = (input_sha256, job.run_sha256, job.on_error, job.only_output)
        found = (shard.input_sha256, shard.run_sha256, shard.on_error, shard.only_output)
        return shard if is_whole and found == wanted else None


def output_of(job: ShardJob, path: str) -> Path:
    """Where the output of a file goes: to the same name, and compressed alike."""
    return Path(job.out) / Path(path).name


def check_files(job: ShardJob, paths: Sequence[str]) -> None:
    """Makes the folders. Raises SettingsError where outputs would overwrite each other or an input,
    DataError where a file cannot be read."""
    counted = Counter(Path(path).name for path in paths)
    name, count = counted.most_common(1)[0]
    if count > 1:
        raise SettingsError(f"{name}: given {count} times", hint="their outputs have one name")
    for path in paths:
        if path == "-":
            raise SettingsError("--out: expected files, got stdin")
        check_readable(path)
        output = output_of(job, path)
        if output.exists() and output.samefile(path):
            raise SettingsError(f"{path}: the output would overwrite it", hint="another --out")
    try:
        (Path(job.out) / MANIFESTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NlpkitError(f"{job.out}: cannot be written: {error.strerror}") from None


def lost(path: str) -> NlpkitError:
    """The error of a file whose worker was lost too often."""
    return NlpkitError(f"{path}: {TRIES} workers were lost over it", hint="is there enough memory?")


def _manifest_of(output: Path) -> Path:
    return output.parent / MANIFESTS / f"{output.name}.json"


def _note(output: Path, shard: Shard) -> None:
    noted: dict[str, Any] = asdict(shard)
    del noted["told"], noted["is_old"]
    with write_atomic(_manifest_of(output)) as stream:
        stream.write(json.dumps(noted, ensure_ascii=False, indent=1).encode() + b"\n")


def _state_of(path: str) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _written(output: Path) -> Iterator[Any]:
    """The output file, compressed as its name says; the same lines give the same bytes."""
    with write_atomic(output) as stream:
        if output.suffix == ".gz":
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed:
                yield packed
        elif output.suffix == ".xz":
            with lzma.LZMAFile(stream, "wb", preset=1) as packed:
                yield packed
        else:
            yield stream
