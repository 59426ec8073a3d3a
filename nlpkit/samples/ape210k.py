"""Made-up math word problems: a story with numbers drawn anew, and the equation that it asks for.

The story's numbers differ from one another, the answer is positive, and one story in three has a
number that the question does not need. Constants (1, 2, 3.14, 60) are no numbers of the story.

    {"text": "郑翊在云泽买了3本书，每本25元，付了100元，应找回多少元？", "equation": "x=100-3*25", "answer": "25"}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from nlpkit.samples._grammar import Cast, draw_records, fill
from nlpkit.samples._world import World
from nlpkit.tasks.ape210k.arithmetic import evaluate

PROBLEMS = {
    "<person1>买了{few1}本书，每本{some1}元，付了{many1}元，应找回多少元？": "{many1}-{few1}*{some1}",
    "<person1>有{some1}[颗糖|张邮票|枚棋子]，<person2>比<person1>多{few1}，<person2>有多少？": "{some1}+{few1}",
    "<person1>有{some1}[颗糖|张邮票]，<person2>比<person1>少{few1}，两人一共有多少？": "{some1}+{some1}-{few1}",
    "<firm1>[计划|打算]生产{many1}台机器，每天生产{few1}台，做了{few2}天，还剩多少台？": "{many1}-{few1}*{few2}",
    "<firm1>要运{many1}吨煤，每次运{part1}，每次运多少吨？": "{many1}*{part1}",
    "<person1>读一本书，第一天读了全书的{part1}，正好是{some1}页，这本书共多少页？": "{some1}/{part1}",
    "<person1>读一本{many1}页的书，读了{part1}，还剩多少页？": "{many1}*(1-{part1})",
    "<person1>读一本书，读了{part1}，还剩{some1}页，这本书共多少页？": "{some1}/(1-{part1})",
    "从<place1>到<place2>有{many1}千米，[汽车|火车]每小时行{some1}千米，{few1}小时后离<place2>还有多少千米？": (
        "{many1}-{some1}*{few1}"
    ),
    "<place1>和<place2>相距{many1}千米，两车同时相对开出，每小时行{some1}千米和{some2}千米，几小时后相遇？": (
        "{many1}/({some1}+{some2})"
    ),
    "<school1>有男生{some1}人，女生{some2}人，[平均|]分成{few1}组，每组多少人？": "({some1}+{some2})/{few1}",
    "<place1>有一个长方形[花坛|操场]，长{some1}米，宽{few1}米，它的周长是多少米？": "({some1}+{few1})*2",
    "<place1>有一个正方形[花坛|草坪]，边长是{price1}米，面积是多少平方米？": "{price1}^2",
    "<place1>有一个圆形[水池|舞台]，半径是{few1}米，面积是多少平方米？": "3.14*{few1}^2",
    "<person1>把{many1}元存入银行，年利率是{percent1}，{few1}年后[利息|可得利息]多少元？": "{many1}*{percent1}*{few1}",
    "<firm1>的一件[大衣|外套]原价{many1}元，降价{percent1}后卖多少元？": "{many1}*(1-{percent1})",
    "<firm1>的一件[大衣|外套]涨价{percent1}后卖{many1}元，原价多少元？": "{many1}/(1+{percent1})",
    "[苹果|梨]每千克{price1}元，<person1>买了{few1}千克，又买了{some1}元的[米|面粉]，一共花了多少元？": (
        "{price1}*{few1}+{some1}"
    ),
    "<person1>的绳子长{mixed1}米，剪去{part1}米，还剩多少米？": "{mixed1}-{part1}",
    "<person1>每分钟走{some1}米，{few1}小时走多少米？": "{some1}*60*{few1}",
    "<person1>{few1}天[织|做]了{some1}[条围巾|个零件]，照这样计算，{few2}天能做多少？": "{some1}/{few1}*{few2}",
    "<person1>想好两个数：甲数是{some1}，乙数比甲数的{few1}倍[多|还多]{few2}，乙数是多少？": "{some1}*{few1}+{few2}",
    "<person1>想好两个数：甲数是{many1}，比乙数的{few1}倍少{few2}，乙数是多少？": "({many1}+{few2})/{few1}",
    "修<place1>到<place2>的路，甲队单独修要{few1}天，乙队要{some1}天，合修要几天？": "1/(1/{few1}+1/{some1})",
}
"""Story -> equation; a hole in braces is a number of a kind (see `_number`), the others are those
of `_grammar`."""

LEADS = ["", "", "", "", "{some9}年前，<person9>[教过|出过]这道题：", "（第{few9}题）"]
_HOLE = re.compile(r"\{(\w+)\}")


def records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` records, texts of 15 to 120 characters; the same seed gives the same records."""
    return draw_records(_record, World(f"ape210k {seed}"), count)


def _record(world: World) -> dict[str, Any]:
    story = world.random.choice(list(PROBLEMS))
    template = world.random.choice(LEADS) + story
    equation = PROBLEMS[story]
    numbers: dict[str, str] = {}
    while not numbers or evaluate(_filled(equation, numbers)) <= 0:
        numbers = _numbers(world, template)
    text = "".join(piece.text for piece in fill(_filled(template, numbers), Cast(world)))
    equation = _filled(equation, numbers)
    return {"text": text, "equation": f"x={equation}", "answer": str(evaluate(equation))}


def _filled(template: str, numbers: dict[str, str]) -> str:
    return _HOLE.sub(lambda match: numbers[match[1]], template)


def _numbers(world: World, template: str) -> dict[str, str]:
    """A number for every hole, no two of them equal."""
    numbers: dict[str, str] = {}
    for hole in dict.fromkeys(_HOLE.findall(template)):
        number = _number(world, hole.rstrip("0123456789"))
        while any(evaluate(number) == evaluate(other) for other in numbers.values()):
            number = _number(world, hole.rstrip("0123456789"))
        numbers[hole] = number
    return numbers


def _number(world: World, kind: str) -> str:
    """few 2 to 9, some 10 to 99, many 100 to 2000, price 0.5 to 20.0, percent 1% to 60%, part a
    fraction below 1."""
    draw = world.random.randint
    below = draw(3, 12)
    part = f"({draw(1, below - 1)}/{below})"
    ranges = {"few": (2, 9), "some": (10, 99), "many": (100, 2000)}
    if kind in ranges:
        return str(draw(*ranges[kind]))
    if kind == "price":
        return f"{draw(5, 200) / 10}"
    return {"percent": f"{draw(1, 60)}%", "part": part, "mixed": f"{draw(2, 9)}{part}"}[kind]
