"""Made-up lines for filling in masks: sentences with invented names in them and one or two common
characters hidden.

What is hidden belongs to the sentence, not to a name, so that the words around it tell what it is.

    {"text": "柳栩妍[MASK]生于云泽。", "answer": "出"}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from nlpkit.samples._grammar import Cast, Piece, draw_records, fill
from nlpkit.samples._world import World

SENTENCES = [
    "<person1>出生于<place1>，从小就喜欢画画",
    "<person1>大学毕业以后回到<place1>工作",
    "<date1>，<person1>坐火车从<place1>去<place2>旅行",
    "<person1>在<place1>开了一家小书店，生意越来越好",
    "<firm1>今天宣布，将在<place1>建设新的工厂",
    "<firm1>的总经理<person1>认为，市场还没有回到原来的水平",
    "小说《<book1>》的作者是<person1>，书里的故事发生在<place1>",
    "电影《<film1>》昨天晚上在<place1>首次公开放映",
    "<person1>写信告诉父亲，自己已经找到了合适的房子",
    "老师问<person1>为什么没有来上课，<person1>说自己生病了",
    "因为下了一天的大雨，从<place1>到<place2>的公路已经不能通车",
    "虽然天气很冷，但是<place1>的街道上还是有很多人",
    "如果明天不下雨，<person1>就和朋友们一起去爬山",
    "<person1>不但会唱歌，而且会跳舞",
    "为了学习音乐，<person1>每天早上六点钟起床",
    "<place1>的春天很短，夏天却很长",
    "这本书一共有<number1>页，<person1>只看了一半",
    "<person1>担任主编的杂志每个月出版一期",
]
SENTENCE_END = "[。|。|！]"
_HANZI = re.compile(r"[\u4e00-\u9fff]{1,2}")


def records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` records, texts of 15 to 120 characters; the same seed gives the same records."""
    return draw_records(_record, World(f"fill_mask {seed}"), count)


def _record(world: World) -> dict[str, Any]:
    pieces = fill(world.random.choice(SENTENCES) + SENTENCE_END, Cast(world))
    chosen = world.random.choice(
        [i for i, piece in enumerate(pieces) if not piece.slot and _HANZI.search(piece.text)]
    )
    match = world.random.choice(list(_HANZI.finditer(pieces[chosen].text)))
    text = pieces[chosen].text
    hidden = text[: match.start()] + "[MASK]" * len(match[0]) + text[match.end() :]
    pieces[chosen] = Piece("", hidden)
    return {"text": "".join(piece.text for piece in pieces), "answer": match[0]}
