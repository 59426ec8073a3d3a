"""Made-up entity linking: a small knowledge base of people, firms, books, films and places, and
texts that name them.

Half of the names are shared: a book and a film, or two people with different trades. What is asked
or told of a name says which is meant. One text in ten asks what fits none of the entities of a
shared name: it is NIL. Aliases also stand in texts where they mean nothing (a place inside a firm's
name). The knowledge base is the same for every seed, so that any data goes with it;
`knowledge_base` has its lines.

    {"text": "《沉默的灯塔》是谁执导的？", "mentions": [{"start": 1, "end": 6, "entity": "17"}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from nlpkit.samples._grammar import SHORTEST
from nlpkit.samples._world import World

SIZE = 400
"""Names in the knowledge base; half of them have two entities."""


class Kind(NamedTuple):
    """What an entity of a kind has: predicates with the drawing of their objects, and texts that
    speak of it."""

    type: str
    facts: dict[str, str]
    texts: tuple[str, ...]


KINDS = {
    "book": Kind(
        "图书",
        {"作者": "person", "出版时间": "date", "页数": "number"},
        (
            "《{}》的作者是谁？我想读完它",
            "请问《{}》一共有多少页？",
            "小说《{}》是哪年出版的？",
            "他昨天读完了《{}》这本书",
        ),
    ),
    "film": Kind(
        "影视",
        {"导演": "person", "主演": "person", "上映时间": "date"},
        (
            "《{}》的导演是谁？",
            "请问电影《{}》是何时上映的？",
            "谁主演了《{}》这部影片？",
            "昨晚看了影片《{}》",
        ),
    ),
    "song": Kind(
        "歌曲",
        {"歌手": "person", "作曲": "person", "时长": "number"},
        ("《{}》是谁唱的？很想听一听", "请问给《{}》作曲的人是谁？", "歌手在台上唱了《{}》这首歌"),
    ),
    "writer": Kind(
        "作家",
        {"代表作品": "book", "出生地": "place"},
        ("作家{}写过哪些小说？", "请问{}的代表作品是什么？", "{}的新书在书店里卖得很好"),
    ),
    "player": Kind(
        "运动员",
        {"身高": "number", "运动项目": "sport", "所属球队": "place"},
        ("球员{}的身高是多少？", "请问{}在哪支球队打球？", "{}在比赛的最后一分钟进球了"),
    ),
    "firm": Kind(
        "公司",
        {"成立时间": "date", "总部地点": "place", "员工数": "number"},
        ("{}的总部在什么地方？", "请问{}是哪一年成立的？", "{}今年招了很多新员工"),
    ),
    "place": Kind(
        "地点",
        {"人口": "number", "面积": "number"},
        ("{}有多少人口，面积多大？", "请问去{}坐什么车最方便？", "今天{}下了一整天的大雨"),
    ),
}
FAMILIES = (("book", "film", "song"), ("writer", "player"), ("firm",), ("place",))
"""Kinds that share names."""
NIL_SHARE = 0.1


class Named(NamedTuple):
    """A name and the entities that go by it: kind -> id."""

    name: str
    family: tuple[str, ...]
    ids: dict[str, str]


def records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` records, texts of 9 to 40 characters; the same seed gives the same records."""
    world = World(f"entity_linking {seed}")
    named, _ = base()
    for _ in range(count):
        yield _record(world, named)


def knowledge_base(count: int, seed: int) -> Iterator[str]:
    """The lines of the knowledge base, which depends on neither number nor seed."""
    yield from (json.dumps(entity, ensure_ascii=False) for entity in base()[1])


@cache
def base() -> tuple[list[Named], list[dict[str, Any]]]:
    """The names, and the entities as CCKS2019 writes them."""
    world = World("entity_linking base")
    taken = set[str]()
    named: list[Named] = []
    entities: list[dict[str, Any]] = []
    while len(named) < SIZE:
        family = FAMILIES[len(named) % len(FAMILIES)]
        name = _draw(world, {"writer": "person"}.get(family[0], family[0]))
        if name in taken:
            continue
        taken.add(name)
        ids = {}
        for kind in world.random.sample(family, min(len(family), 2)):
            ids[kind] = str(len(entities) + 1)
            entities.append(_entity(world, ids[kind], name, KINDS[kind]))
        named.append(Named(name, family, ids))
    return named, entities


def _entity(world: World, id_: str, name: str, kind: Kind) -> dict[str, Any]:
    data = [
        {"predicate": predicate, "object": _draw(world, what)}
        for predicate, what in kind.facts.items()
    ]
    return {"alias": [name], "subject_id": id_, "subject": name, "type": [kind.type], "data": data}


def _draw(world: World, what: str) -> str:
    return (
        world.random.choice(("篮球", "足球", "排球"))
        if what == "sport"
        else str(getattr(world, what)())
    )


def _record(world: World, named: list[Named]) -> dict[str, Any]:
    """A text about one name, at times of a kind that the knowledge base has no such entity of."""
    chosen = world.random.choice(named)
    missing = [kind for kind in chosen.family if kind not in chosen.ids]
    kind = world.random.choice(
        missing if missing and world.chance(3 * NIL_SHARE) else list(chosen.ids)
    )
    before, after = world.random.choice(KINDS[kind].texts).split("{}")
    text = before + chosen.name + after
    if len(text) < SHORTEST and world.chance(0.5):
        text += "，谢谢"
    mention = {
        "start": len(before),
        "end": len(before) + len(chosen.name),
        "entity": chosen.ids.get(kind),
    }
    return {"text": text, "mentions": [mention]}
