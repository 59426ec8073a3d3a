"""Mentions of entities as entity linking reads, compares and tunes them: its own JSONL and that of
CCKS2019 and 2020.

Two mentions are equal if their characters and their entities are; NIL, which no entity of the
knowledge base is, counts as an entity. Source: https://www.biendata.xyz/competition/ccks_2019_el/
(the metric).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nlpkit.errors import RecordError, shown
from nlpkit.evaluation.metrics import prf
from nlpkit.formats.typed import LARGEST, read_value

NIL = "NIL"
MOST_DIGITS = 15  # of an offset
NEVER = -1e9  # a threshold below every score


@dataclass(frozen=True)
class Candidate:
    """An entity that a mention may mean, and how well it fits: above the threshold, better than
    none."""

    entity: str
    name: str
    score: float


@dataclass(frozen=True)
class Mention:
    """A span of characters and the entity that it means, None for NIL."""

    start: int
    end: int
    text: str
    entity: str | None
    name: str | None = None
    score: float | None = None
    """How surely it is a mention."""
    choices: int | None = None
    """How many entities of the knowledge base go by this name; None where it is not at hand."""
    candidates: list[Candidate] = field(default_factory=list)
    """The best of them, best first."""

    @property
    def key(self) -> tuple[int, int, str]:
        """What makes two mentions the same."""
        return self.start, self.end, self.entity or NIL

    @property
    def kind(self) -> str:
        """What `eval --by kind` groups by."""
        return NIL if self.entity is None else "ambiguous" if (self.choices or 0) > 1 else "unique"

    def decided(self, nil_threshold: float) -> Mention:
        """The mention of its best candidate, or of none where that does not score above the
        threshold."""
        if not self.candidates or self.candidates[0].score <= nil_threshold:
            return replace(self, entity=None, name=None)
        return replace(self, entity=self.candidates[0].entity, name=self.candidates[0].name)


@dataclass(frozen=True)
class Prediction:
    """The mentions of a text, by place."""

    mentions: list[Mention]


def read_mentions(record: dict[str, Any], text: str | None) -> list[Mention] | None:
    """The mentions of `mentions`, or of CCKS's `mention_data`, checked against the text; None where
    there is neither.

    Raises RecordError.
    """
    name = next(
        (name for name in ("mentions", "mention_data") if record.get(name) is not None), None
    )
    if name is None:
        return None
    if not isinstance(record[name], list):
        raise RecordError(f"{name}: expected a list, got {type(record[name]).__name__}")
    read = _read if name == "mentions" else _read_ccks
    return [read(mention, f"{name}[{index}]", text) for index, mention in enumerate(record[name])]


def _read(mention: Any, where: str, text: str | None) -> Mention:
    start, end = (_field(mention, name, where, int) for name in ("start", "end"))
    entity = mention.get("entity")
    if entity is not None and not isinstance(entity, str):
        raise RecordError(f"{where}: entity: expected an id or null, got {shown(entity)}")
    string = read_value(str | None, mention.get("text"), f"{where}.text")
    choices = read_value(int | None, mention.get("choices"), f"{where}.choices")
    return _checked(where, text, start, end, string, entity, choices)


def _read_ccks(mention: Any, where: str, text: str | None) -> Mention:
    string, id_ = (_field(mention, name, where, str) for name in ("mention", "kb_id"))
    offset = mention.get("offset")
    if isinstance(offset, str) and offset.isdecimal() and len(offset) < MOST_DIGITS:
        offset = int(offset)
    if type(offset) is not int or not 0 <= offset < 10**MOST_DIGITS:
        raise RecordError(f"{where}: offset: expected a number of characters, got {shown(offset)}")
    entity = None if id_ == NIL or id_.startswith("NIL_") else id_
    return _checked(where, text, offset, offset + len(string), string, entity, None)


def _field(mention: Any, name: str, where: str, kind: type) -> Any:
    if not isinstance(mention, dict):
        raise RecordError(f"{where}: expected an object, got {shown(mention)}")
    if name not in mention:
        raise RecordError(f'{where}: missing field "{name}"')
    if type(mention[name]) is not kind:
        raise RecordError(f"{where}: {name}: expected {kind.__name__}, got {shown(mention[name])}")
    return mention[name]


def _checked(
    where: str,
    text: str | None,
    start: int,
    end: int,
    string: str | None,
    entity: str | None,
    choices: int | None,
) -> Mention:
    most = LARGEST if text is None else len(text)
    if not 0 <= start < end <= most:
        of = "" if text is None else f" of {len(text)} characters"
        raise RecordError(f"{where}: [{shown(start)}, {shown(end)}) is no span of the text{of}")
    if text is not None and string is not None and text[start:end] != string:
        raise RecordError(
            f'{where}: the text has "{text[start:end]}" at [{start}, {end}), not "{string}"',
            hint="offsets count the characters of the text as given",
        )
    found = text[start:end] if text is not None else string or ""
    return Mention(start, end, found, entity, choices=choices)


def apart(mentions: Iterable[Mention]) -> list[Mention]:
    """The mentions by place, of those that overlap the one with the best score; of equal scores the
    longest."""
    kept: list[Mention] = []
    for mention in sorted(mentions, key=lambda m: (-(m.score or 0.0), m.start - m.end, m.start)):
        if all(mention.end <= other.start or other.end <= mention.start for other in kept):
            kept.append(mention)
    return sorted(kept, key=lambda m: m.start)


def score_mentions(pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
    """Micro precision, recall and F1 of (span, entity); of spans alone; of NIL; and accuracy on
    ambiguous mentions."""
    totals = {name: np.zeros(3, np.int64) for name in ("all", "mention", "nil")}
    ambiguous = right = 0
    for gold, prediction in pairs:
        golds, found = {m.key: m for m in gold.mentions}, {m.key: m for m in prediction.mentions}
        totals["all"] += _counts(golds.keys(), found.keys())
        totals["mention"] += _counts({k[:2] for k in golds}, {k[:2] for k in found})
        totals["nil"] += _counts(
            {k for k in golds if k[2] == NIL}, {k for k in found if k[2] == NIL}
        )
        choices = {key[:2]: mention.choices for key, mention in found.items()}
        hard = [
            k
            for k, m in golds.items()
            if m.entity is not None and (m.choices or choices.get(k[:2]) or 0) > 1
        ]
        ambiguous += len(hard)
        right += len(found.keys() & set(hard))
    whole, mention, nil = (prf(*totals[name].tolist()) for name in ("all", "mention", "nil"))
    metrics = {
        **whole,
        **{f"mention_{name}": mention[name] for name in ("precision", "recall", "f1")},
    }
    metrics |= {"ambiguous": ambiguous, "ambiguous_correct": right}
    metrics["ambiguous_accuracy"] = round(right / max(ambiguous, 1), 6)
    if nil["gold"] or nil["predicted"]:
        metrics |= {f"nil_{name}": nil[name] for name in ("precision", "recall", "f1")}
    return {**metrics, "match": "strict"}


def _counts(gold: Any, found: Any) -> tuple[int, int, int]:
    return len(gold & found), len(found), len(gold)


def tune_mentions(pairs: Sequence[tuple[Prediction, Prediction]]) -> tuple[float, float]:
    """(threshold of mentions, threshold of NIL) with the best F1 of loose predictions, exactly,
    over both at once.

    For every place where the NIL threshold can lie, the mentions by falling score give the F1 of
    every other threshold by running sums. A threshold lies in the middle between two scores.
    Without NIL in gold it is NEVER.
    """
    scored: list[tuple[float, float, bool, bool]] = []
    gold_count = 0
    for gold, prediction in pairs:
        golds = {mention.key for mention in gold.mentions}
        gold_count += len(golds)
        for mention in prediction.mentions:
            fit = mention.candidates[0].score if mention.candidates else NEVER
            linked = (
                (*mention.key[:2], mention.candidates[0].entity) if mention.candidates else None
            )
            scored.append(
                (mention.score or 0.0, fit, linked in golds, (*mention.key[:2], NIL) in golds)
            )
    if not scored or not gold_count:
        return 0.0, 0.0
    ranked = sorted(scored, key=lambda mention: -mention[0])
    score, fits, is_linked, is_nil = (np.array(column) for column in zip(*ranked, strict=True))
    parted = np.append(score[:-1] > score[1:], True)  # a threshold cannot part equal scores
    predicted = np.arange(1, len(score) + 1) + gold_count
    best = (-1.0, 0.0, NEVER)
    for nil_threshold in (
        _middles(fits[(is_linked != is_nil) & (fits > NEVER)]) if is_nil.any() else [NEVER]
    ):
        f1 = 2 * np.cumsum(np.where(fits > nil_threshold, is_linked, is_nil)) / predicted * parted
        place = int(f1.argmax())
        if f1[place] > best[0]:
            below = score[place + 1] if place + 1 < len(score) else score[place] - 1.0
            best = (float(f1[place]), float((score[place] + below) / 2), nil_threshold)
    return best[1], best[2]


def _middles(values: np.ndarray) -> list[float]:
    """A threshold below all values, one between any two neighbours, and one above all."""
    distinct = np.unique(values)
    if not len(distinct):
        return [NEVER]
    return [NEVER, *((distinct[1:] + distinct[:-1]) / 2).tolist(), float(distinct[-1] + 1.0)]
