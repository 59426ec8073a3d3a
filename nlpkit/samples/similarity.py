"""Made-up questions to a help desk, in groups that mean the same, and the desk's own wording of
each, which is the knowledge base.

A group is a thing to ask of a made-up place, book or firm; it has two to four wordings. The
knowledge base is that of the records of the same count and seed.

    {"text": "云泽图书馆几点开门？", "group": "云泽图书馆 opening"}
    {"text": "请问云泽图书馆什么时候开始营业", "group": "云泽图书馆 opening"}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from nlpkit.samples._grammar import Cast, fill
from nlpkit.samples._world import World

THINGS = {
    "<place1>[图书馆|博物馆|游泳馆]": {
        "opening": ["<it>几点开门", "<it>什么时候开始营业", "<it>早上从几点起可以进去"],
        "price": ["<it>门票多少钱", "去<it>要花多少钱", "<it>怎么收费"],
        "way": ["怎么去<it>", "去<it>坐什么车", "<it>在哪里，怎么走"],
        "parking": ["<it>能停车吗", "开车去<it>有车位吗", "<it>附近有没有停车场"],
    },
    "《<book1>》": {
        "author": ["<it>是谁写的", "<it>的作者叫什么", "谁是<it>的作者"],
        "borrow": ["怎么借<it>", "我想借<it>，要办什么手续", "<it>可以外借吗"],
        "return": ["<it>什么时候要还", "借了<it>，最晚哪天归还", "<it>能借多久"],
        "lost": ["<it>弄丢了怎么办", "我找不到借来的<it>了", "丢了<it>要赔多少"],
    },
    "<firm1>": {
        "phone": ["<it>的电话是多少", "怎么打电话给<it>", "<it>的客服热线是哪个号码"],
        "refund": ["在<it>买的东西怎么退", "<it>怎么退款", "想退<it>的货，钱多久到账"],
        "job": ["<it>招人吗", "怎么应聘<it>", "<it>现在有什么职位"],
        "invoice": ["<it>能开发票吗", "怎么向<it>要发票", "<it>的发票在哪里开"],
    },
}
LEADS = ["", "", "请问", "你好，", "想问一下，"]
ENDS = ["", "？", "？", "啊？", "呢"]


def records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` records, the groups one after another, each of two texts at least (one record alone
    is one); the same seed gives the same records."""
    for group, texts in _groups(count, seed):
        for text in texts:
            yield {"text": text, "group": group}


def knowledge_base(count: int, seed: int) -> Iterator[str]:
    """A sentence for each group of the records, as JSON lines with its `group`."""
    for group, texts in _groups(count, seed):
        yield json.dumps({"text": texts[0], "group": group}, ensure_ascii=False)


def _groups(count: int, seed: int) -> Iterator[tuple[str, list[str]]]:
    world = World(f"similarity {seed}")
    seen: set[str] = set()
    left = count
    while left > 0:
        group, texts = _group(world)
        if group in seen:
            continue
        seen.add(group)
        size = world.random.choice((2, 2, 3, 3, 4))
        if left - size < 2:
            size = left
        yield group, texts[:size]
        left -= size


def _group(world: World) -> tuple[str, list[str]]:
    """The name of a group, and up to five wordings, all different."""
    choice = world.random.choice
    thing = choice(sorted(THINGS))
    topic = choice(sorted(THINGS[thing]))
    name = "".join(piece.text for piece in fill(thing, Cast(world)))
    wordings = THINGS[thing][topic]
    texts: list[str] = []
    while len(texts) < 5:
        wording = wordings[len(texts) % len(wordings)].replace("<it>", name)
        text = choice(LEADS) + wording + choice(ENDS)
        if text not in texts:
            texts.append(text)
    return f"{name} {topic}", texts
