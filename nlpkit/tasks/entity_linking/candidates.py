"""What entity linking knows of a text before any model: where aliases stand, what is told of them,
whom they may mean.

Legend: M matches of a text, N candidates of a mention.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlpkit.errors import RecordError, SettingsError
from nlpkit.formats.text import read_text
from nlpkit.tasks.entity_linking.kb import EntityBase, Match
from nlpkit.tasks.entity_linking.kb_file import file_hash, read_kb
from nlpkit.tasks.entity_linking.link_statistics import Counts, LinkStatistics, part_of
from nlpkit.tasks.entity_linking.mentions import read_mentions
from nlpkit.text.words import word_lengths

MARKS, PRIORS = 8, 5
"""Features of a match, and of a candidate."""


@dataclass(frozen=True, eq=False)
class Lexicon:
    """A knowledge base and the link statistics of a training set."""

    kb: EntityBase
    statistics: LinkStatistics
    most: int
    """Candidates of a mention at most: those meant most often, then the first of the file."""

    def shapes(self, text: str, matches: Sequence[Match]) -> np.ndarray:
        """Whether a word starts and ends with each match, its length, its namesakes, what holds it:
        (M, MARKS - 2)."""
        edges = {0, *itertools.accumulate(word_lengths(text))} if matches else set()
        shapes = np.zeros((len(matches), MARKS - 2), np.float32)
        widest: dict[int, int] = {}
        for match in matches:
            widest[match.start] = max(match.end, widest.get(match.start, 0))
        reach = 0
        holds = {}
        for start in sorted(widest):  # whether a match that starts before reaches beyond the end
            holds[start] = reach
            reach = max(reach, widest[start])
        for row, (start, end, alias) in enumerate(matches):
            namesakes = int(self.kb.first[alias + 1] - self.kb.first[alias])
            longer = widest[start] > end or holds[start] >= end
            ends = (start in edges, end in edges)
            shapes[row] = (
                *ends,
                np.log(end - start),
                np.log(namesakes),
                longer,
                end - start == len(text),
            )
        return shapes

    def features(self, aliases: np.ndarray, shapes: np.ndarray, without: int | None) -> np.ndarray:
        """The features of matches: link probability over all parts or all but one, and shapes: (M,
        MARKS)."""
        return np.column_stack([self.statistics.marks(aliases, without), shapes]).astype(np.float32)

    def candidates(
        self, alias: int, name: str, without: int | None, right: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(rows, priors) of the entities that an alias, written as `name`, may mean: (N,), (N,
        PRIORS).

        Those meant most often come first. Where `right` goes by the alias and is not among the
        first `most`, it is in the place of the last of them.
        """
        start = int(self.kb.first[alias])
        places = np.arange(start, self.kb.first[alias + 1])
        linked = self.statistics.linked(places, without)
        order = np.argsort(-linked, kind="stable")
        kept = order[: self.most]
        if right is not None:
            own = np.flatnonzero(self.kb.entities[places] == right)
            if not np.isin(own, kept).any():
                kept[-1] = own[0]
        rows = self.kb.entities[places[kept]]
        return rows, self.priors(rows, name, linked[kept], len(places))

    def priors(self, rows: np.ndarray, name: str, linked: np.ndarray, namesakes: int) -> np.ndarray:
        """How often candidates were meant, how much is told of them, whether they are written so:
        (N, PRIORS)."""
        lines = [self.kb.lines.of(row) for row in rows.tolist()]
        length = [len(description) for _, _, description in lines]
        alike = [own == name for _, own, _ in lines]
        share = linked / max(int(linked.sum()), 1)
        several = np.full(len(rows), np.log(namesakes))
        return np.column_stack([np.log1p(linked), share, several, np.log1p(length), alike]).astype(
            np.float32
        )

    def training_candidates(
        self,
        alias: int,
        name: str,
        id_: str | None,
        without: int | None,
        others: np.ndarray,
        hidden: bool,
    ) -> tuple[np.ndarray, np.ndarray, int] | None:
        """What a model learns to choose from: (rows, priors, place of the right one or -1 for NIL).

        None where the right one does not go by this alias. Other entities get the priors of the
        right one, so that nothing but their descriptions tells them from it.

        Args:
            alias: of the mention; name: as it is written; id_: of its entity, None for NIL.
            without: as of `candidates`.
            others: rows of entities that are candidates too.
            hidden: the right one is left out, so that NIL is right.
        """
        right = None if id_ is None else self.kb.row(alias, id_)
        if id_ is not None and right is None:
            return None
        rows, priors = self.candidates(alias, name, without, right)
        place = -1 if right is None else rows.tolist().index(right)
        others = np.setdiff1d(others, self.kb.entities_of(alias))
        more = np.repeat(priors[[max(place, 0)]], len(others), 0)
        if hidden and place >= 0:
            rows = np.delete(rows, place)
            priors = np.delete(priors, place, 0)
            place = -1
        return np.append(rows, others), np.concatenate([priors, more]), place


def count_links(
    kb: EntityBase, records: Iterable[tuple[str, dict[str, Any]]]
) -> tuple[LinkStatistics, bool]:
    """(link statistics, whether a mention of NIL is no alias) of (place, record) pairs. Raises
    DataError with the place."""
    matched, marked, linked = (Counter[tuple[int, int]]() for _ in range(3))
    unknown = False
    for where, record in records:
        try:
            text = read_text(record)
            mentions = read_mentions(record, text) or []
        except RecordError as error:
            raise error.at(where) from None
        part = part_of(text)
        found = kb.matches(text)
        aliases = {match[:2]: match.alias for match in found}
        matched.update((match.alias, part) for match in found)
        for mention in mentions:
            alias = aliases.get((mention.start, mention.end))
            unknown |= alias is None and mention.entity is None
            if alias is None:
                continue
            marked[alias, part] += 1
            row = None if mention.entity is None else kb.row(alias, mention.entity)
            if row is not None:
                linked[pair_key(kb, alias, row), part] += 1
    return LinkStatistics(*map(Counts.of, (matched, marked, linked))), unknown


def pair_key(kb: EntityBase, alias: int, row: int) -> int:
    """The place of an alias and one of its entities in `EntityBase.entities`."""
    return int(kb.first[alias]) + kb.entities_of(alias).tolist().index(row)


def open_lexicon(folder: Path, most: int) -> Lexicon:
    """What training wrote to a run's folder, mapped once. Raises SettingsError."""
    kb = EntityBase.open(folder / "kb")
    aliases = len(kb.first) - 1
    return Lexicon(kb, LinkStatistics.open(folder, aliases, len(kb.entities)), most)


def prepare_lexicon(
    kb: str, records: Sequence[tuple[str, dict[str, Any]]], folder: Path, longest: int
) -> tuple[str, bool]:
    """Writes the knowledge base and the link statistics of the records to a folder; (hash of `kb`,
    whether NIL may be no alias).

    Raises DataError.
    """
    source = file_hash(kb)
    base = EntityBase.build(read_kb(kb, longest), folder / "kb", source)
    statistics, unknown = count_links(base, records)
    statistics.save(folder)
    return source, unknown


def refuse_change(kb: str, source: str) -> None:
    """Raises SettingsError where the file of a knowledge base, if it is there, is not what `source`
    is the hash of."""
    if kb and Path(kb).exists() and file_hash(kb) != source:
        raise SettingsError(
            f"{kb}: the knowledge base changed after training, or is another one",
            hint="train again with it; or put it elsewhere: "
            "the run keeps a copy of the one it was trained with",
        )
