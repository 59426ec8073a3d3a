"""Made-up questions on a made-up knowledge base.

Every name of the knowledge base has three to six facts, and one name in eight belongs to two
things, told apart by their meaning. A question asks for a fact of one of them in words of its own.
The knowledge base is that of the records of the same count and seed.

    {"question": "请问云泽县有多大？", "answer": "云泽县（湖泊） ||| 面积 ||| 480平方千米"}
    云泽县（湖泊）<tab>面积<tab>480平方千米
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from nlpkit.samples._grammar import Cast, fill
from nlpkit.samples._world import World

FACTS = {
    "person": {
        "出生地": ("<place>", "[出生在哪里|是在什么地方出生的|的出生地是哪里]"),
        "毕业院校": ("<school>", "[毕业于哪所大学|的毕业院校是什么|在哪里读的大学]"),
        "代表作品": ("《<book>》", "[写过哪些书|有什么代表作品|的代表作是哪一部]"),
        "妻子": ("<person>", "[的妻子是谁|跟谁结了婚|娶了谁]"),
        "职业": ("[演员|作家|工程师|画家]", "[是做什么的|的职业是什么|以什么为生]"),
        "生日": ("<date>", "[的生日是哪天|是什么时候出生的|哪天过生日]"),
    },
    "place": {
        "面积": ("<number>平方千米", "[的面积是多少|有多大|占地多少]"),
        "人口": ("<number>人", "[有多少人|的人口是多少|住着多少人]"),
        "著名景点": ("<book>塔", "[有哪些著名景点|有什么好玩的地方|的景点是什么]"),
        "气候类型": ("[季风|海洋|高原]气候", "[是什么气候|属于哪种气候类型|的气候怎么样]"),
        "别名": ("<place>", "[的别名是什么|又叫什么|还有什么名字]"),
        "市长": ("<person>", "[的市长是谁|由谁当市长|归谁管]"),
    },
    "firm": {
        "成立时间": ("<date>", "[是什么时候成立的|的成立时间是哪一年|哪天创办的]"),
        "总部地点": ("<place>", "[的总部在哪里|总部地点在什么地方|位于哪个城市]"),
        "董事长": ("<person>", "[的董事长是谁|由谁领导|的负责人叫什么]"),
        "员工数": ("<number>人", "[有多少员工|的员工数是多少|雇了多少人]"),
        "经营范围": ("[食品|能源|航运]", "[的经营范围是什么|做什么生意|主要经营什么]"),
        "公司口号": ("<book>", "[的口号是什么|有什么公司口号|喊什么口号]"),
    },
}
"""Kind of thing -> predicate -> object, and how it is asked for."""

MEANINGS = {
    "person": ["演员", "作家", "古代名将", "游戏人物"],
    "place": ["湖泊", "火车站", "历史地名", "小说中的城市"],
    "firm": ["上市公司", "餐饮品牌", "电视剧中的公司", "机械制造企业"],
}
LEADS = ["", "", "", "请问", "我想知道", "谁知道", "你知道"]
QUESTIONS_EACH = 2  # of a name

Fact = tuple[str, str, str, str]  # subject, predicate, object, question


def records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` records; the same count and seed give the same records."""
    for asked, _ in _names(count, seed):
        for subject, predicate, object_, question in asked:
            yield {"question": question, "answer": f"{subject} ||| {predicate} ||| {object_}"}


def knowledge_base(count: int, seed: int) -> Iterator[str]:
    """The lines of the knowledge base of these records."""
    for _, facts in _names(count, seed):
        yield from ("\t".join(fact[:3]) for fact in facts)


def _names(count: int, seed: int) -> Iterator[tuple[list[Fact], list[Fact]]]:
    """(what is asked for, all facts) of every name."""
    world = World(f"kgclue {seed}")
    known = set[str]()
    left = count
    while left > 0:
        kind = world.random.choice(list(FACTS))
        name = Cast(world).name(f"{kind}1")
        if name in known:
            continue
        known.add(name)
        shared = world.chance(1 / 8)
        meanings = world.random.sample(MEANINGS[kind], 2) if shared else [""]
        if not shared and world.chance(1 / 5):
            meanings = [world.random.choice(MEANINGS[kind])]
        predicates = world.random.sample(list(FACTS[kind]), world.random.randint(3, 6))
        facts = [
            _fact(world, kind, name, meanings[number % len(meanings)], predicate)
            for number, predicate in enumerate(predicates)
        ]
        asked = world.random.sample(facts, min(QUESTIONS_EACH, left))
        left -= len(asked)
        yield asked, facts


def _fact(world: World, kind: str, name: str, meaning: str, predicate: str) -> Fact:
    object_, question = FACTS[kind][predicate]
    cast = Cast(world)
    numbered = re.sub(r"<(\w+)>", r"<\g<1>1>", object_)
    value = "".join(piece.text for piece in fill(numbered, cast))
    words = "".join(piece.text for piece in fill(question, cast))
    subject = f"{name}（{meaning}）" if meaning else name
    return subject, predicate, value, f"{world.random.choice(LEADS)}{name}{words}？"
