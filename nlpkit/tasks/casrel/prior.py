"""What the training data say of a text beforehand: their triples whose subject and object it names.

    features_TX[t, 0], [t, 1]            token t is the first, the last of the subject of such a triple
    features_TX[t, 2 + 2 p], [t, 3 + 2 p]    of its object, under predicate p

A triple that only one training text states is no feature of this text: there it would tell the
answer, and the model would learn to repeat it. A text whose strings were replaced counts as the text
that it was made of.

Source: https://kexue.fm/archives/6671, distant supervision; its features go through convolutions.
Legend: T tokens, X features, 2 and 2 for each predicate.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import marisa_trie
import torch

from nlpkit.formats.text import read_text
from nlpkit.formats.triples import parse_triples
from nlpkit.formats.typed import read_json
from nlpkit.jsonl import write_atomic
from nlpkit.text.tokenizer import Encoding

FILE = "prior.json"
SEVERAL = ""
Facts = dict[str, list[tuple[str, str, str]]]
"""Subject -> (predicate, object, the only text that states it as `digest`, or SEVERAL)."""


def digest(text: str) -> str:
    """A text as a name of 16 characters."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Noting:
    """Passes (place, record) pairs on and keeps the triples of those that were taken."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str, str], str] = {}

    def __call__(
        self, records: Iterable[tuple[str, dict[str, Any]]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The pairs as they are. A record is kept when the next one is asked for, so that whoever
        takes them has refused a bad one before."""
        for where, record in records:
            yield where, record
            if record.get("spo_list") is not None:
                self._note(record)

    def write(self, folder: Path) -> None:
        """Writes `prior.json`."""
        facts: Facts = {}
        for (subject, predicate, object_), text in sorted(self._texts.items()):
            facts.setdefault(subject, []).append((predicate, object_, text))
        with write_atomic(folder / FILE) as stream:
            stream.write(json.dumps(facts, ensure_ascii=False).encode() + b"\n")

    def _note(self, record: dict[str, Any]) -> None:
        text = digest(read_text(record))
        for triple in parse_triples(record).spo_list:
            key = triple.subject, triple.predicate, triple.object
            same = self._texts.setdefault(key, text) == text
            if not same:
                self._texts[key] = SEVERAL


class Prior:
    """The triples of `prior.json`, by the subjects that a text names."""

    def __init__(self, folder: Path, predicate_ids: dict[str, int]):
        self.facts: Facts = read_json(Facts, folder / FILE)
        self.predicate_ids = predicate_ids
        self.size = 2 + 2 * len(predicate_ids)
        self._subjects = marisa_trie.Trie(self.facts)
        self._longest = max(map(len, self.facts), default=0)

    def features(self, encoding: Encoding, origin: str) -> torch.Tensor:
        """features_TX of a text, bool; `origin` is the `digest` of the text it was made of."""
        features_TX = torch.zeros((len(encoding), self.size), dtype=torch.bool)
        for subject in self._named(encoding.text):
            objects = []
            for predicate, object_, only_text in self.facts[subject]:
                number = self.predicate_ids.get(predicate)
                if number is not None and only_text != origin and object_ in encoding.text:
                    objects.append((2 + 2 * number, object_))
            if not objects:
                continue
            for column, string in [(0, subject), *objects]:
                for first, end in encoding.find(string):
                    features_TX[first, column] = True
                    features_TX[end - 1, column + 1] = True
        return features_TX

    def _named(self, text: str) -> set[str]:
        """The subjects that stand in a text."""
        found: set[str] = set()
        for start in range(len(text)):
            found.update(self._subjects.prefixes(text[start : start + self._longest]))
        return found
