"""The knowledge base of entity linking: a dictionary of aliases in a trie, and the entities, mapped
into memory.

    kb = EntityBase.build(read_kb("kb.jsonl", 62), path, source)      once, at training
    kb = EntityBase.open(path)
    kb.matches("光明日报是谁的歌")    [Match(start=0, end=1, alias=3), Match(start=0, end=4, ...), ...]
    kb.entities_of(3)    rows of the entities that go by this alias, in the order of the file
    kb.id(row), kb.name(row), kb.description(row)

One file of arrays, which is checked before it is used: `trie`, the casefolded aliases (see
`nlpkit.text.folding`) as a marisa trie, whose numbers are the aliases; `first` and `entities`, the
rows of each alias one after the other; and the three lines of each entity. From each place of a
text the trie gives all aliases that begin there, in one walk. A million entities take about 120 MB.
The check is for damage and for arrays that make no sense. The bytes of the marisa trie are the
library's own, and the library trusts them: made by hand, with a right sha256, they can crash the
process (7 of 150 tried), so open only files whose origin is known.

Source: https://github.com/s-yata/marisa-trie (common prefix search), https://kexue.fm/archives/6919
(the dictionary).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import marisa_trie
import numpy as np

from nlpkit.decoding.trie.arrays import Array, Arrays, Header, Kind, read_arrays, write_arrays
from nlpkit.decoding.trie.values import LINE_FEED, Values
from nlpkit.errors import DataError, SettingsError
from nlpkit.tasks.entity_linking.kb_file import KbEntity, repeated
from nlpkit.text.folding import Casefolded, casefold

LINES = 3  # of an entity: id, name and description


def _problem(header: Header, arrays: Arrays) -> str | None:
    first, entities, ends = arrays["first"], arrays["entities"], arrays["ends"]
    count = len(ends)
    if not len(first) or first[0] != 0 or (np.diff(first) <= 0).any():
        return "an alias without an entity"
    if first[-1] != len(entities) or header["longest"] < 1:
        return "aliases out of range"
    if (entities < 0).any() or (entities >= count).any():
        return "entities out of range"
    problem = Values(ends, arrays["text"]).problem(count)
    if problem is not None:
        return problem
    line_ends = np.flatnonzero(arrays["text"] == LINE_FEED) + 1
    if len(line_ends) != LINES * count or (line_ends[LINES - 1 :: LINES] != ends).any():
        return f"entities of other than {LINES} lines"
    return None


KIND = Kind(
    name="knowledge base",
    version=2,
    plain={"source": str, "longest": int},
    arrays={
        "trie": Array(("U8",)),
        "first": Array(("I64",)),
        "entities": Array(("I32",)),
        "ends": Array(("I64",)),
        "text": Array(("U8",)),
    },
    problem=_problem,
    remedy="train again: the run keeps a copy of its knowledge base",
)


class Match(NamedTuple):
    """An alias at `[start, end)` in characters of the text as given."""

    start: int
    end: int
    alias: int


@dataclass(frozen=True, eq=False)
class EntityBase:
    """Entities by row, in the order of the file; aliases by number. `len` counts entities."""

    trie: marisa_trie.Trie
    longest: int
    """Characters of the longest casefolded alias."""
    first: np.ndarray
    """Where the entities of each alias begin, and the end: (aliases + 1,) int64."""
    entities: np.ndarray
    """Rows of entities, int32."""
    lines: Values
    """Id, name and description of each entity."""
    source: str
    """sha256 of the file that it was made from."""

    def __len__(self) -> int:
        return len(self.lines.ends)

    @classmethod
    def build(cls, entities: Iterable[tuple[str, KbEntity]], path: Path, source: str) -> EntityBase:
        """Writes the file. Raises DataError for an id that is there twice, and for no entity at
        all."""
        keys: list[str] = []
        rows = array("i")
        names = Text()
        seen: dict[str, str] = {}
        for row, (where, entity) in enumerate(entities):
            if entity.id in seen:
                raise repeated(where, entity.id, seen[entity.id])
            seen[entity.id] = where
            names.add(entity)
            folded = {casefold(alias).text for alias in entity.aliases}
            keys += folded
            rows.extend([row] * len(folded))
        if not seen:
            raise DataError("the knowledge base has no entities")
        trie = marisa_trie.Trie(keys)
        alias = np.fromiter(map(trie.key_id, keys), np.int64, len(keys))
        order = np.lexsort((np.asarray(rows), alias))
        arrays: dict[str, np.ndarray] = {
            "trie": np.frombuffer(trie.tobytes(), np.uint8),
            "first": np.searchsorted(alias[order], np.arange(len(trie) + 1)).astype(np.int64),
            "entities": np.asarray(rows, np.int32)[order],
            "ends": np.asarray(names.ends),
            "text": np.frombuffer(names.data, np.uint8),
        }
        plain = {"source": source, "longest": max(map(len, keys))}
        write_arrays(path, KIND, plain, arrays)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> EntityBase:
        """What `build` wrote. Raises SettingsError where it is missing, damaged or of another
        version."""
        header, arrays = read_arrays(path, KIND)
        trie = marisa_trie.Trie()
        try:
            trie.frombytes(arrays["trie"].tobytes())
        except RuntimeError as error:  # what the library raises
            raise SettingsError(f"{path}: damaged: {error}", KIND.remedy) from None
        if len(trie) != len(arrays["first"]) - 1:
            raise SettingsError(f"{path}: damaged: another number of aliases", KIND.remedy)
        lines = Values(arrays["ends"], arrays["text"])
        return cls(
            trie, header["longest"], arrays["first"], arrays["entities"], lines, header["source"]
        )

    def matches(self, text: str) -> list[Match]:
        """All aliases in a text, by place: every substring of it whose folded form is one."""
        folded = casefold(text)
        return [match for start in range(len(folded.text)) for match in self._from(folded, start)]

    def _from(self, folded: Casefolded, start: int) -> Iterator[Match]:
        for key, alias in self.trie.iter_prefixes_with_ids(
            folded.text[start : start + self.longest]
        ):
            span = folded.span(start, start + len(key))
            if span:
                yield Match(*span, alias)

    def alias(self, name: str) -> int | None:
        """The alias of a name, None where nothing goes by it."""
        return self.trie.get(casefold(name).text)

    def entities_of(self, alias: int) -> np.ndarray:
        """The rows of the entities that go by an alias: (entities,), in the order of the file."""
        return self.entities[self.first[alias] : self.first[alias + 1]]

    def row(self, alias: int, id_: str) -> int | None:
        """The row of an entity among those that go by an alias, None where it is not there."""
        return next((row for row in self.entities_of(alias).tolist() if self.id(row) == id_), None)

    def id(self, row: int) -> str:
        """The id that the file gives the entity of a row."""
        return self.lines.of(row)[0]

    def name(self, row: int) -> str:
        """What the file calls the entity of a row; it need not be its alias in a text."""
        return self.lines.of(row)[1]

    def description(self, row: int) -> str:
        """What tells the entity from others."""
        return self.lines.of(row)[2]


class Text:
    """The lines of entities as `Values` has them, made as they come."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ends = array("q")

    def add(self, entity: KbEntity) -> None:
        """One entity more."""
        self.data += f"{entity.id}\n{entity.name}\n{entity.description}\n".encode(
            "utf-8", "replace"
        )
        self.ends.append(len(self.data))
