"""Made-up reading comprehension: one to three short passages that tell facts, and a question about
one of them.

The passages tell the same kinds of facts of other names too, so that the question has to be read.
One question in ten is about a fact that no passage tells: it has no answer.

    {"question": "星澜科技公司是什么时候成立的？", "context": "星澜科技公司在1998年成立。柳栩妍生于澄浦县。",
     "answers": ["1998年"]}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from nlpkit.samples._grammar import Cast, fill
from nlpkit.samples._world import World

FACTS = [
    ("<person1>[出生在|生于]<place1>", "<person1>[是哪里人|出生在哪里]？", "place1"),
    ("<person1>[出生在|生于]<place1>", "谁[出生在|生于]<place1>？", "person1"),
    ("<firm1>[于|在]<date1>成立", "<firm1>是什么时候[成立|创办]的？", "date1"),
    ("<firm1>的[总裁|董事长]是<person1>", "[谁领导|谁负责]<firm1>？", "person1"),
    ("<person1>[毕业于|任教于]<school1>", "<person1>在[哪所|什么]学校？", "school1"),
    ("《<book1>》是<person1>写的[小说|诗集]", "《<book1>》[是谁写的|的作者是谁]？", "person1"),
    ("<person1>[写过|发表了]《<book1>》", "<person1>写过什么书？", "book1"),
    ("[影片|电影]《<film1>》由<person1>[主演|执导]", "<person1>拍了[哪部|什么]电影？", "film1"),
    ("<place1>[有|住着]<number1>人", "<place1>有多少人？", "number1"),
    ("<date1>，<person1>[去了|来到]<place1>", "<person1>什么时候到<place1>的？", "date1"),
]
"""A sentence, a question about it, and the slot that answers it."""

UNTOLD = 0.1  # of the questions


def reading_records(world: World, count: int) -> Iterator[dict[str, Any]]:
    """`count` records; passages have one to four sentences each."""
    for _ in range(count):
        yield _record(world)


def _record(world: World) -> dict[str, Any]:
    random = world.random
    cast = Cast(world)
    sizes = [random.randint(2, 4) for _ in range(random.choice((1, 1, 2, 3)))]
    facts = [random.choice(FACTS) for _ in range(sum(sizes))]
    sentences = [
        _filled(sentence + "[。|。|；]", number, cast)
        for number, (sentence, _, _) in enumerate(facts)
    ]
    asked = random.randrange(len(facts))
    _, question, slot = facts[asked]
    record: dict[str, Any] = {"question": _filled(question, asked, cast)}
    answers = [cast.name(_of(slot, asked))]
    if world.chance(UNTOLD):
        sentences[asked] = ""
        answers = []
    passages = ["".join(sentences[sum(sizes[:i]) : sum(sizes[: i + 1])]) for i in range(len(sizes))]
    told = {"context": passages[0]} if len(passages) == 1 else {"passages": passages}
    return {**record, **told, "answers": answers}


def _filled(template: str, number: int, cast: Cast) -> str:
    """The template about the names of fact `number`."""
    own = re.sub(r"<(\w+)>", lambda match: f"<{_of(match[1], number)}>", template)
    return "".join(piece.text for piece in fill(own, cast))


def _of(slot: str, number: int) -> str:
    return f"{slot}{number:02}"
