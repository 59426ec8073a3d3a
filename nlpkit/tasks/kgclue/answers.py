"""Answers from a knowledge base: how they are written, read, and scored as the benchmark does.

    gold         "云泽（湖泊） ||| 面积 ||| 30平方千米"       the first object is the one that is scored
    prediction   {"subject": "云泽", "meaning": "湖泊", "predicate": "面积", "objects": ["30平方千米"],
                  "score": -0.2, "beams": [...]}

Subject (with its meaning), predicate and object each have an exact match and, on characters,

    F1 = 2 LCS(a, b) / (|a| + |b|)          Score = (exact match + F1) / 2 of the object

with LCS the length of the longest common subsequence.

Source: https://github.com/CLUEbenchmark/KgCLUE; https://kexue.fm/archives/8802 (its table has two
columns swapped).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nlpkit.errors import RecordError, shown
from nlpkit.formats.typed import read_dataclass
from nlpkit.tasks.kgclue.knowledge_base import Name, Triple

SEPARATOR = "|||"


@dataclass(frozen=True)
class Answer:
    """What a knowledge base says: of the same subject, meaning and predicate all objects, in the
    order of its file."""

    subject: str
    meaning: str
    predicate: str
    objects: list[str]
    score: float | None = None

    @property
    def triple(self) -> Triple:
        """With the first object; of no answer all parts are empty."""
        return Triple(
            Name(self.subject, self.meaning).text, self.predicate, (self.objects or [""])[0]
        )


@dataclass(frozen=True)
class Prediction(Answer):
    """The best answer, and all beams; where there is none, everything is empty."""

    beams: list[Answer] = field(default_factory=list)


def read_gold(record: dict[str, Any]) -> Prediction | None:
    """The gold of a record, None where it does not say. Raises RecordError."""
    answer = record.get("answer")
    if answer is None:
        return None
    parts = [part.strip() for part in answer.split(SEPARATOR, 2)] if isinstance(answer, str) else []
    if len(parts) != 3 or not all(parts):
        raise RecordError(
            f'field "answer": expected "subject ||| predicate ||| object", got {shown(answer)}'
        )
    name = Name.of(parts[0])
    return Prediction(name.base, name.meaning, parts[1], [parts[2]])


def parse_prediction(value: dict[str, Any]) -> Prediction:
    """A prediction as found in a file. Raises RecordError."""
    return read_dataclass(Prediction, value)


def score_answers(pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
    """Exact match and F1 of subject, predicate and object, the benchmark's `score`, and the share
    of all three right.

    An answer counts by its first object, a missing answer is wrong.
    """
    totals: dict[str, float] = defaultdict(float)
    questions = 0
    for gold, prediction in pairs:
        questions += 1
        totals["triple_em"] += gold.triple == prediction.triple
        for name, expected, found in zip(
            Triple._fields, gold.triple, prediction.triple, strict=True
        ):
            totals[f"{name}_em"] += expected == found
            totals[f"{name}_f1"] += (
                2 * common_length(expected, found) / (len(expected) + len(found))
            )
    names = [f"{name}_{kind}" for name in Triple._fields for kind in ("em", "f1")]
    shares = {name: round(totals[name] / max(1, questions), 6) for name in (*names, "triple_em")}
    return {
        "score": round((shares["object_em"] + shares["object_f1"]) / 2, 6),
        **shares,
        "match": "first object",
    }


def common_length(one: str, other: str) -> int:
    """The length of the longest common subsequence of characters: a bit of a word for each
    character of `one`.

    Source: Hyyrö 2004, Bit-parallel LCS-length computation revisited.
    """
    places: dict[str, int] = {}
    for place, character in enumerate(one):
        places[character] = places.get(character, 0) | 1 << place
    full = (1 << len(one)) - 1
    word = full
    for character in other:
        hit = word & places.get(character, 0)
        word = (word + hit | word - hit) & full
    return len(one) - word.bit_count()
