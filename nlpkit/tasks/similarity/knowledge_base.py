"""The sentences that are looked up: JSON lines, or a sentence a line.

    {"text": "怎么还款", "group": "还款"}        `group` may be missing; other fields are passed over
    怎么还款

Which of the two a file is its first character says. A run keeps a copy, in the first form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nlpkit.errors import DataError, RecordError, SettingsError
from nlpkit.formats.labels import read_label
from nlpkit.formats.text import read_text
from nlpkit.jsonl import Line, dumps, open_binary, read_lines, write_atomic

COPY = "kb.jsonl"
"""The copy in the folder of a run."""


@dataclass(frozen=True)
class Sentences:
    """A knowledge base: texts in the order of the file, the group of each or None, and the sha256
    of its content as a run keeps it."""

    texts: list[str]
    groups: list[str | None]
    sha256: str

    @property
    def has_groups(self) -> bool:
        """Whether any sentence has a group."""
        return any(group is not None for group in self.groups)

    def lines(self) -> Iterator[bytes]:
        """Their lines in a run."""
        return _lines(self.texts, self.groups)


def _lines(texts: list[str], groups: list[str | None]) -> Iterator[bytes]:
    for text, group in zip(texts, groups, strict=True):
        known = {} if group is None else {"group": group}
        yield dumps({"text": text, **known}) + b"\n"


def read_sentences(path: str | Path) -> Sentences:
    """The knowledge base of a file. Raises DataError, with the place, for a line that holds no
    sentence, and for a file without any."""
    texts: list[str] = []
    groups: list[str | None] = []
    is_json: bool | None = None
    for line in read_lines(path):
        if is_json is None:
            is_json = line.raw[:1] == b"{"
        try:
            text, group = _of_json(line) if is_json else (line.text(), None)
        except RecordError as error:
            raise error.at(line.where) from None
        texts.append(text)
        groups.append(group)
    if not texts:
        raise DataError(f"{path}: the knowledge base has no sentences")
    digest = hashlib.sha256()
    for raw in _lines(texts, groups):
        digest.update(raw)
    return Sentences(texts, groups, digest.hexdigest())


def _of_json(line: Line) -> tuple[str, str | None]:
    record = line.record()
    text = read_text(record)
    if not text.strip():
        raise RecordError('field "text": expected a sentence, got an empty one')
    return text, read_label(record.get("group"), "group")


def keep_copy(sentences: Sentences, folder: Path) -> None:
    """Writes the copy to the folder of a run."""
    with write_atomic(folder / COPY) as stream:
        stream.writelines(sentences.lines())


def file_hash(path: str | Path) -> str:
    """sha256 of a file's content, unpacked. Raises DataError where it cannot be read."""
    digest = hashlib.sha256()
    with open_binary(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def open_sentences(kb: str, kb_sha256: str | None, folder: Path) -> Sentences | None:
    """The knowledge base of a run: the file `kb` where it is given in the place of that of the
    training (no `kb_sha256`), else the copy in the folder; None where there is none.

    Raises DataError for a bad file, SettingsError where the file of the training is another now.
    """
    if kb and kb_sha256 is None:
        return read_sentences(kb)
    copy = folder / COPY
    if not copy.exists():
        return None
    if kb and Path(kb).exists() and file_hash(kb) != kb_sha256:
        raise SettingsError(
            f"{kb}: the knowledge base changed after training, or is another one",
            hint=f"to look up in it as it is: --kb {kb}",
        )
    try:
        return read_sentences(copy)
    except DataError as error:
        raise SettingsError(error.message) from None
