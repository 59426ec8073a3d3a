"""Lines with errors, as a report shows them: the text with its spans marked, and what was expected
and said where that is no span."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nlpkit.evaluation.error_kinds import parts_of
from nlpkit.evaluation.report_parts import Mark, Shown

MOST_CHARACTERS = 600  # of a text that is shown
MOST_BEAMS = 5
VERDICTS = ("right", "missed", "extra")


def given_text(record: dict[str, Any]) -> str:
    """What the model was given of a record, as one text."""
    if isinstance(record.get("text"), str):
        return record["text"]
    passages = record.get("passages") or [record.get("context")]
    found = [record.get("question"), *passages]
    found += [record.get("text_a"), record.get("text_b")]
    if all(part is None for part in found):
        found = [record.get("label")]
    return "\n".join(str(part) for part in found if part is not None)


def shown_line(task: Any, where: str, record: dict[str, Any], gold: Any, prediction: Any) -> Shown:
    """A line of a file, cut to MOST_CHARACTERS: facts that are spans, or whose strings stand in the
    text, as marks in it; the others below it. Facts of gold come first."""
    text = given_text(record)[:MOST_CHARACTERS]
    gold_facts = task.facts(gold)
    found_facts = task.facts(prediction)
    marks: list[Mark] = []
    facts: list[tuple[str, str]] = []
    for fact in [*gold_facts, *(fact for fact in found_facts if fact not in gold_facts)]:
        verdict = _verdict(fact, gold_facts, found_facts)
        parts = parts_of(fact, gold_facts.get(fact) or found_facts[fact])
        spans = _spans(parts.place, text)
        label = _words(parts.type) if parts.type is not None else ""
        if _is_span(parts.place, text):
            marks.append(Mark(*spans[0], verdict, label))
        else:
            facts.append((verdict, _words(fact)))
            marks += [Mark(start, end, verdict, "") for start, end in spans]
    return Shown(where, text, marks, facts, _beams(prediction))


def _verdict(fact: Any, gold: dict[Any, str], found: dict[Any, str]) -> str:
    if fact not in found:
        return "missed"
    return "right" if fact in gold else "extra"


def _is_span(place: Sequence[Any], text: str) -> bool:
    """Whether a place is [start, end) of the text."""
    numbers = len(place) == 2 and all(isinstance(part, int) for part in place)
    return numbers and 0 <= place[0] < place[1] <= len(text)


def _spans(place: Sequence[Any], text: str) -> list[tuple[int, int]]:
    """The span of a place; of strings, where each first stands in the text."""
    if _is_span(place, text):
        return [(place[0], place[1])]
    found = []
    for part in place:
        start = text.find(part) if isinstance(part, str) and part else -1
        if start >= 0:
            found.append((start, start + len(part)))
    return found


def _words(fact: Any) -> str:
    """A fact for people."""
    if isinstance(fact, tuple):
        return " · ".join(_words(part) for part in fact)
    return str(fact)


def _beams(prediction: Any) -> list[str]:
    """What else was proposed: beams, other answers, several texts."""
    for name in ("beams", "alternatives", "texts", "candidates"):
        found = getattr(prediction, name, None)
        if isinstance(found, list) and len(found) > (name != "beams"):
            return [_proposal(one) for one in found[:MOST_BEAMS]]
    return []


def _proposal(one: Any) -> str:
    if isinstance(one, str):
        return one
    values = vars(one)
    shown = [
        _words(tuple(value) if isinstance(value, list) else value) for value in values.values()
    ]
    return " | ".join(part for part in shown if part not in ("", "None"))


def segments(text: str, marks: Sequence[Mark]) -> list[tuple[str, list[Mark], list[Mark]]]:
    """The text cut where marks begin and end: (piece, the marks over it, those that end with
    it)."""
    edges = {0, len(text)}
    for mark in marks:
        edges |= {mark.start, mark.end}
    places = sorted(edges)
    found = []
    for start, end in zip(places, places[1:], strict=False):
        over = [mark for mark in marks if mark.start <= start and end <= mark.end]
        found.append((text[start:end], over, [mark for mark in over if mark.end == end]))
    return found
