"""Plain text to files of tokens, once: training reads blocks of them through the page cache,
however many there are.

A token is one unsigned integer: its id, and in the highest bit whether a word begins with it
(jieba), so that whole words can be masked. The lines of a file, which are paragraphs, follow one
another with [SEP] between them. One line in a thousand, chosen by a hash of its bytes, so that a
copy of it goes the same way, is held out for evaluation.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import json
import multiprocessing
import os
import re
import signal
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from nlpkit.errors import DataError, SettingsError
from nlpkit.jsonl import Line, read_lines, write_atomic
from nlpkit.text.backend import vocabulary_hash
from nlpkit.text.words import word_lengths

HELD_OUT = 1000  # one line in so many
LINES = 2000  # that a process encodes together
SMALL = 1 << 20  # bytes: fewer are encoded before other processes have started

_backend: tokenizers.Tokenizer  # of a process that encodes


@dataclass(frozen=True)
class Source:
    """The tokens of a text file, and how often a pass takes each: 0.2 is every fifth block, 2 is
    every block twice."""

    path: str
    weight: float
    tokens: np.ndarray


@dataclass(frozen=True)
class Corpus:
    """What is trained on, and the tokens held out from it."""

    sources: list[Source]
    held_out: np.ndarray

    def describe(self) -> list[dict[str, Any]]:
        """A dict for each source: what a model card and a resumed training want to know."""
        return [
            {"file": Path(s.path).name, "weight": s.weight, "tokens": len(s.tokens)}
            for s in self.sources
        ]


def parse_source(argument: str) -> tuple[str, float]:
    """`FILE` or `FILE:WEIGHT` as (file, weight). Raises SettingsError for a weight that is none."""
    match = None if Path(argument).exists() else re.fullmatch(r"(.+):(\d*\.?\d+)", argument)
    path, weight = (match[1], float(match[2])) if match else (argument, 1.0)
    if weight <= 0:
        raise SettingsError(f"{argument}: expected a weight above 0")
    return path, weight


def token_type(backend: tokenizers.Tokenizer) -> np.dtype[Any]:
    """The narrowest of the two types that hold the ids and a bit more."""
    return np.dtype(np.uint16 if max(backend.get_vocab().values()) < 1 << 15 else np.uint32)


def word_bit(tokens: np.ndarray) -> int:
    """The bit that says that a word begins: the highest of the type of `tokens`, of any shape."""
    return 1 << (8 * tokens.itemsize - 1)


def split_tokens(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ids as int64, whether a word begins), of stored tokens of any shape."""
    bit = word_bit(tokens)
    return (tokens & (bit - 1)).astype(np.int64), (tokens & bit) > 0


def load_corpus(
    folder: Path, arguments: list[str], backend: tokenizers.Tokenizer, encode: bool = True
) -> Corpus:
    """The corpus of some text files, encoded in `folder` unless they are there already.

    With `encode=False` (a process that waited for another one to do it) it must be there. Raises
    DataError for a file that cannot be read or is not UTF-8, SettingsError where `folder` holds
    another corpus or there is too little text.
    """
    sources = [parse_source(argument) for argument in arguments]
    index = {
        "vocabulary": vocabulary_hash(backend),
        "files": [_fingerprint(path) for path, _ in sources],
    }
    done = folder / "corpus.json"
    if done.exists() and json.loads(done.read_bytes()) != index:
        raise SettingsError(
            f"{folder}: holds the tokens of other texts or another vocabulary",
            hint="name another one",
        )
    if not done.exists():
        if not encode:
            raise SettingsError(f"{folder}: holds no corpus")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"{folder}: cannot be written: {error.strerror}") from None
        _encode_files(folder, [path for path, _ in sources], backend)
        for (path, _), known in zip(sources, index["files"], strict=True):
            if _fingerprint(path) != known:
                raise DataError(f"{path}: changed while it was read")
        with write_atomic(done) as stream:
            stream.write(json.dumps(index).encode())
    dtype = token_type(backend)
    read = [_read(folder / f"{number}.tokens", dtype) for number in range(len(sources))]
    held_out = [_read(folder / f"{number}.held_out", dtype) for number in range(len(sources))]
    found = [
        Source(path, weight, tokens) for (path, weight), tokens in zip(sources, read, strict=True)
    ]
    return Corpus(found, np.concatenate(held_out))


def _fingerprint(path: str) -> list[Any]:
    content = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while part := stream.read(1 << 20):
                content.update(part)
        return [Path(path).name, content.hexdigest()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _read(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)


def _encode_files(folder: Path, paths: list[str], backend: tokenizers.Tokenizer) -> None:
    """Writes `N.tokens` and `N.held_out` for every file; where they are large, in several
    processes."""
    if sum(Path(path).stat().st_size for path in paths) < SMALL:
        _use(backend.to_str())
        _write_tokens(folder, paths, lambda chunks: map(encode_lines, chunks))
        return
    context = multiprocessing.get_context("spawn")
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, context, _start, (backend.to_str(),)) as pool:
        _write_tokens(folder, paths, lambda chunks: _in_order(pool, chunks, 2 * workers))


def _write_tokens(
    folder: Path,
    paths: list[str],
    encode: Callable[[Iterable[list[Line]]], Iterable[tuple[bytes, bytes]]],
) -> None:
    for number, path in enumerate(paths):
        with (
            write_atomic(folder / f"{number}.tokens") as train,
            write_atomic(folder / f"{number}.held_out") as held,
        ):
            for encoded, held_out in encode(_chunks(read_lines(path))):
                train.write(encoded)
                held.write(held_out)


def _chunks(lines: Iterable[Line]) -> Iterator[list[Line]]:
    lines = iter(lines)
    while chunk := list(itertools.islice(lines, LINES)):
        yield chunk


def _in_order(
    pool: ProcessPoolExecutor, chunks: Iterable[list[Line]], ahead: int
) -> Iterator[tuple[bytes, bytes]]:
    """The encoded chunks in their order; no more than `ahead` are under way, so that memory stays
    small."""
    waiting: collections.deque[Future[tuple[bytes, bytes]]] = collections.deque()
    for chunk in chunks:
        waiting.append(pool.submit(encode_lines, chunk))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _start(tokenizer: str) -> None:
    """What a process of the pool does first."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for this one hears it
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _use(tokenizer)


def _use(tokenizer: str) -> None:
    global _backend
    _backend = tokenizers.Tokenizer.from_str(tokenizer)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone: killed, that one ends nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def encode_lines(lines: list[Line]) -> tuple[bytes, bytes]:
    """(tokens to train on, tokens held out) of lines, each with [SEP] after it. Raises DataError
    with the place."""
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    dtype = token_type(_backend)
    separator = np.array([_backend.token_to_id("[SEP]")], dtype)
    for line in lines:
        text = line.text().strip()
        parts[zlib.crc32(line.raw) % HELD_OUT == 0].extend(
            [encode_text(text, _backend, dtype), separator]
        )
    train, held_out = (np.concatenate(part).tobytes() if part else b"" for part in parts)
    return train, held_out


def encode_text(text: str, backend: tokenizers.Tokenizer, dtype: np.dtype[Any]) -> np.ndarray:
    """The tokens of a text, in its order: `dtype` (tokens,). The first one of every word has
    `word_bit`; there are no special tokens."""
    encoded = backend.encode(text, add_special_tokens=False)
    tokens = np.array(encoded.ids, dtype)
    begins = np.zeros(len(text) + 1, dtype=bool)
    begins[np.cumsum([0, *word_lengths(text)])] = True
    starts = np.array([start for start, _ in encoded.offsets], dtype=np.int64)
    marked = begins[starts] & (
        np.diff(starts, prepend=-1) != 0
    )  # the second token of one character begins nothing
    return tokens | (marked.astype(dtype) * dtype.type(word_bit(tokens)))
