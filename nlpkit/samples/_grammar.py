"""Sentence templates and how they are filled with the names of a `World`.

A template is text with two kinds of holes: `<person1>` is a name of the kind before the number, the
same one wherever the slot recurs in a record; `[写|著|]` is one of the words between the bars,
possibly none. A choice may hold slots, but no slot that gold speaks of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from nlpkit.samples._world import World

_SLOT = re.compile(r"<(\w+)>")
_CHOICE = re.compile(r"\[([^\]]*)\]")
_ORGANISATIONS = ("firm", "school")
_HOME_SHARE = 0.4
"""How many places, and how many organisations, take the place that a record calls home."""

SHORTEST, LONGEST = 15, 120
"""Bounds on the length of a text, in characters, both included."""


class Piece(NamedTuple):
    """A stretch of a filled template: the name of a slot, or with `slot` empty the text between
    names."""

    slot: str
    text: str


def kind_of(slot: str) -> str:
    """`person` for `person1`."""
    return slot.rstrip("0123456789")


class Cast:
    """The names of one record.

    No name is part of another, with one exception: a firm or a school may be named after a place of
    the record (云泽星澜集团 in 云泽), so that a place also occurs inside a longer name.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.home = world.place()
        self.names: dict[str, str] = {}

    def name(self, slot: str) -> str:
        """The name of a slot, drawn at its first use."""
        while slot not in self.names:
            name = self._draw(kind_of(slot))
            if not any(
                self._clash(slot, name, other, taken) for other, taken in self.names.items()
            ):
                self.names[slot] = name
        return self.names[slot]

    def _draw(self, kind: str) -> str:
        at_home = self.world.chance(_HOME_SHARE)
        if kind == "place" and at_home and self.home not in self.names.values():
            return self.home
        if kind in _ORGANISATIONS and at_home:
            return getattr(self.world, kind)(self.home)
        return getattr(self.world, kind)()

    def _clash(self, slot: str, name: str, other: str, taken: str) -> bool:
        kinds = {kind_of(slot), kind_of(other)}
        if "place" in kinds and kinds & set(_ORGANISATIONS):
            return False
        return name in taken or taken in name


def fill(template: str, cast: Cast) -> list[Piece]:
    """The template with one of the words in every choice and a name in every slot, in the order of
    the text."""
    choice = cast.world.random.choice
    chosen = _CHOICE.sub(lambda match: choice(match[1].split("|")), template)
    parts = _SLOT.split(chosen)  # text, slot, text, slot, ..., text
    pieces = [
        Piece("", part) if index % 2 == 0 else Piece(part, cast.name(part))
        for index, part in enumerate(parts)
    ]
    return [piece for piece in pieces if piece.text]


def draw_records(
    draw: Callable[[World], dict[str, Any]], world: World, count: int
) -> Iterator[dict[str, Any]]:
    """`count` records of a task's `draw`; one whose `text` is too short or too long is drawn
    again."""
    for _ in range(count):
        record = draw(world)
        while not SHORTEST <= len(record["text"]) <= LONGEST:
            record = draw(world)
        yield record
