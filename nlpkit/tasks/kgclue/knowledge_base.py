"""A knowledge base as a decoder writes it: the keys of a trie, and the triples themselves as their
values.

    云泽（湖泊）<tab>面积<tab>30平方千米      a line of the file: subject, predicate, object
    云 泽 [SEP] 面 积 [SEP] 湖 泊            its key in tokens; its value is the line

The meaning, which tells namesakes apart, is what the full-width bracket at the end of a subject
holds: 我（们）的云（小说） is 我（们）的云 with the meaning 小说. Of several brackets at the end the last one
is the meaning: 甲（乙）（丙） is 甲（乙） with the meaning 丙. People who ask name it 甲 as well, so that it
has a second key: 甲 with the meaning 乙）（丙. Both lead to the same triples.

The meaning comes last in the key, since a question tells the predicate, and name and predicate
mostly decide the meaning. Without one the key ends after the second [SEP], where the keys of
namesakes go on. Strings of the same tokens (letter case, [UNK]) share a key; in its values they are
apart.

Source: https://kexue.fm/archives/8802; there the trie is of nested dictionaries, and its values are
objects alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from nlpkit.decoding.trie.csr import MOST_TOKENS
from nlpkit.decoding.trie.token_trie import TokenTrie
from nlpkit.errors import DataError, SettingsError, shown
from nlpkit.jsonl import read_lines
from nlpkit.text.backend import vocabulary_hash
from nlpkit.text.tokenizer import Tokenizer

SUFFIX = ".trie"  # of what is compiled already
AT_ONCE = 4096  # triples tokenized together
MOST_CHARACTERS = MOST_TOKENS - 2  # of subject and predicate: a token has at least one
REMEMBERED = 1 << 20  # strings whose tokens are kept for triples to come


class Name(NamedTuple):
    """A subject in two parts: 云泽（湖泊） is 云泽 and 湖泊; the meaning is empty where there are no
    brackets."""

    base: str
    meaning: str

    @classmethod
    def of(cls, subject: str) -> Name:
        """The parts of a subject as it is written."""
        start = _last_bracket(subject)
        if start is None:
            return cls(subject, "")
        return cls(subject[:start], subject[start + 1 : -1])

    @classmethod
    def readings(cls, subject: str) -> list[Name]:
        """The names that the subject has keys for: that of `of`, and where several brackets stand
        at its end, the one whose meaning is all of them."""
        first = cls.of(subject)
        base = first.base
        while (start := _last_bracket(base)) is not None:
            base = base[:start]
        if base == first.base:
            return [first]
        return [first, cls(base, subject[len(base) + 1 : -1])]

    @classmethod
    def bases(cls, subject: str) -> list[str]:
        """What a question may call the subject."""
        return [name.base for name in cls.readings(subject)]

    @property
    def text(self) -> str:
        """The subject as it is written."""
        return f"{self.base}（{self.meaning}）" if self.meaning else self.base


def _last_bracket(subject: str) -> int | None:
    """Where the bracket opens that closes at the end; None where there is none, it holds nothing,
    or nothing stands before it."""
    if not subject.endswith("）"):
        return None
    depth = 0
    for place in range(len(subject) - 1, 0, -1):
        depth += (subject[place] == "）") - (subject[place] == "（")
        if depth == 0:
            return place if place < len(subject) - 2 else None
    return None


class Triple(NamedTuple):
    """A fact; the subject has its meaning with it."""

    subject: str
    predicate: str
    object: str


@dataclass(frozen=True, eq=False)
class KnowledgeBase:
    """Triples by their keys, which `trie` has."""

    trie: TokenTrie
    tokenizer: Tokenizer

    @classmethod
    def open(
        cls, path: str | Path, tokenizer: Tokenizer, sha256: str | None = None
    ) -> KnowledgeBase:
        """From a file of triples, or from the `.trie` that `nlpkit trie build --task kgclue` made
        of one.

        Raises DataError for a file with a wrong line or none, SettingsError for a trie that is
        damaged, made with another tokenizer, or of something else, and where the file is another
        than that of `sha256` (None: any).
        """
        if sha256 is not None and (found := file_hash(path)) != sha256:
            other = f"expected sha256 {sha256}, got {found}"
            raise SettingsError(
                f"{path}: not the knowledge base of the training: {other}",
                hint="--kb takes another one, or this one as it is now",
            )
        if Path(path).suffix != SUFFIX:
            return cls(compile_triples(read_triples(path), tokenizer), tokenizer)
        trie = TokenTrie.load(path, vocabulary_hash(tokenizer.backend))
        if trie.values is None or not len(trie) or trie.values.of(0)[0].count("\t") != 2:
            raise SettingsError(
                f"{path}: holds no triples",
                hint="nlpkit trie build --task kgclue makes a trie that does",
            )
        return cls(trie, tokenizer)

    def triples(self, key: int) -> list[Triple]:
        """The triples of a key in the order of the file, equal ones once."""
        assert self.trie.values is not None
        return [Triple(*line.split("\t")) for line in dict.fromkeys(self.trie.values.of(key))]

    def find(self, name: Name, predicate: str) -> list[Triple]:
        """The triples of a subject, by any of its readings, and a predicate; none where there are
        none."""
        node = self.trie.find(key_tokens(Name.of(name.text), predicate, self.tokenizer))
        if node < 0 or not self.trie.is_end(node):
            return []
        found = []
        for triple in self.triples(self.trie.key_range(node)[0]):
            if (triple.subject, triple.predicate) == (name.text, predicate):
                found.append(triple)
        return found


def file_hash(path: str | Path) -> str:
    """sha256 of a file's bytes. Raises SettingsError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise SettingsError(f"knowledge base {path}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def read_triples(path: str | Path) -> Iterator[Triple]:
    """The triples of a file, also `.gz` and `.xz`, `-` is stdin. Raises DataError with `file:line`
    at a wrong one.

    A part is what stands between the tabs, without the space around it.
    """
    for line in read_lines(path):
        parts = [part.strip() for part in line.text().split("\t")]
        if len(parts) != 3:
            raise DataError(f"{line.where}: expected 3 columns between tabs, got {len(parts)}")
        if not all(parts):
            raise DataError(
                f"{line.where}: expected subject, predicate and object, got {shown(parts)}"
            )
        length = len(parts[0]) + len(parts[1])
        if length > MOST_CHARACTERS:
            raise DataError(
                f"{line.where}: subject and predicate are too long: "
                f"expected at most {MOST_CHARACTERS} characters, got {length}"
            )
        yield Triple(*parts)


def compile_triples(triples: Iterable[Triple], tokenizer: Tokenizer) -> TokenTrie:
    """The trie of triples in any order. Raises DataError where there is none."""
    lines: list[str] = []  # filled while the keys are read
    size = 1 + max(tokenizer.backend.get_vocab().values())
    trie = TokenTrie.from_sequences(
        _keys(triples, tokenizer, lines), size, vocabulary_hash(tokenizer.backend), lines
    )
    if not lines:
        raise DataError("knowledge base: expected triples, got none")
    return trie


def key_tokens(name: Name, predicate: str, tokenizer: Tokenizer) -> list[int]:
    """The tokens of one key: `subject [SEP] predicate [SEP] meaning`, without an end."""
    base, predicate_ids, meaning = map(tokenizer.token_ids, (name.base, predicate, name.meaning))
    return [*base, tokenizer.sep_id, *predicate_ids, tokenizer.sep_id, *meaning]


def _keys(triples: Iterable[Triple], tokenizer: Tokenizer, lines: list[str]) -> Iterator[list[int]]:
    """`key_tokens` of every triple, fast; its line goes into `lines`."""
    ids: dict[str, list[int]] = {}
    triples = iter(triples)
    sep_id = tokenizer.sep_id
    while chunk := list(islice(triples, AT_ONCE)):
        if len(ids) > REMEMBERED:
            ids.clear()
        readings = [Name.readings(triple.subject) for triple in chunk]
        strings = {triple.predicate for triple in chunk}
        for names in readings:
            for name in names:
                strings.update(name)
        new = list(strings - ids.keys())
        encoded = tokenizer.backend.encode_batch(new, add_special_tokens=False)
        ids.update((string, encoding.ids) for string, encoding in zip(new, encoded, strict=True))
        for triple, names in zip(chunk, readings, strict=True):
            predicate_ids = ids[triple.predicate]
            for name in names:
                lines.append("\t".join(triple))
                yield [*ids[name.base], sep_id, *predicate_ids, sep_id, *ids[name.meaning]]
