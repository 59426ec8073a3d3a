"""What kind of error it is: missed, extra, wrong span, wrong type, wrong relation.

A missed and an extra fact make one error where they differ in one thing: the same place with
another type (of a triple: another relation), or the same type at a place that overlaps. What is
left is missed or extra alone. A place is a span, or the strings that a fact names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

Facts = Mapping[Any, str]  # fact -> group, as `task.facts` gives them
MISSED, EXTRA, SPAN, TYPE, RELATION = (
    *("missed", "extra", "wrong span", "wrong type", "wrong relation"),
)


class Parts(NamedTuple):
    """A fact taken apart."""

    type: Any
    place: tuple[Any, ...]


def errors_of(gold: Facts, predicted: Facts, group: str) -> list[dict[str, Any]]:
    """The errors of a line, each with its `kind` and the facts `gold` and `predicted` that it is
    about; `group` is that of the task."""
    missed = {fact: parts_of(fact, gold[fact]) for fact in sorted(gold.keys() - predicted.keys())}
    extra = {fact: parts_of(fact, predicted[fact]) for fact in sorted(predicted.keys() - gold)}
    other_type = RELATION if group == "predicate" else TYPE
    errors = [
        *_paired(other_type, missed, extra, lambda one, other: one.place == other.place),
        *_paired(SPAN, missed, extra, _is_other_span),
    ]
    errors += [{"kind": MISSED, "gold": fact} for fact in missed]
    errors += [{"kind": EXTRA, "predicted": fact} for fact in extra]
    return errors


def _paired(
    kind: str,
    missed: dict[Any, Parts],
    extra: dict[Any, Parts],
    fits: Callable[[Parts, Parts], bool],
) -> Iterator[dict[str, Any]]:
    """Pairs of a missed and an extra fact, in order; both are taken out."""
    for fact in list(missed):
        for other in extra:
            if fits(missed[fact], extra[other]):
                yield {"kind": kind, "gold": fact, "predicted": other}
                del missed[fact], extra[other]
                break


def parts_of(fact: Any, group: str) -> Parts:
    """The type of a fact and its place.

    A fact that names its group has it as its type; else the strings of one with numbers are (an
    entity at a span). A fact that is its group, such as a label, has no place.
    """
    if not isinstance(fact, tuple):
        return Parts(fact, ()) if fact == group else Parts(None, (fact,))
    if group in fact:
        place = fact.index(group)
        return Parts(group, fact[:place] + fact[place + 1 :])
    numbers = tuple(part for part in fact if isinstance(part, int))
    if numbers:
        return Parts(tuple(part for part in fact if not isinstance(part, int)), numbers)
    return Parts(None, fact)


def _is_other_span(one: Parts, other: Parts) -> bool:
    """Whether the types are equal, and the places overlap."""
    if one.type is None or one.type != other.type or len(one.place) != len(other.place):
        return False
    if len(one.place) == 2 and all(isinstance(part, int) for part in one.place + other.place):
        return one.place[0] < other.place[1] and other.place[0] < one.place[1]
    if not all(isinstance(part, str) for part in one.place + other.place):
        return False
    pairs = zip(one.place, other.place, strict=True)
    return bool(one.place) and all(a in b or b in a for a, b in pairs)
