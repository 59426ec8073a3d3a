"""Made-up reviews of meals, books and rooms, each with what the writer thought of it.

A review names what it is about, tells one or two things of it, and sums up; all of it is of one
mind. Invented names stand in it that say nothing.

    {"text": "在云泽住了一晚，房间干净又安静。下次还来！", "label": "好评"}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nlpkit.samples._grammar import Cast, draw_records, fill
from nlpkit.samples._world import World

LEADS = {
    "meal": [
        "中午点了一份[牛肉面|盖浇饭|麻辣烫]",
        "[第一次|第三次]点<place1>的这家店",
        "和<person1>一起吃的",
    ],
    "room": ["在<place1>住了[一晚|两晚]", "<person1>订的房间", "出差到<place1>就住在这里"],
    "book": [
        "[刚|昨晚]读完《<book1>》",
        "<person1>的新书《<book1>》到手",
        "这本《<book1>》[看了两遍|买了很久]",
    ],
}
REMARKS = {
    "meal": {
        "好评": [
            "[汤|菜]还是热的",
            "分量[很足|比想的多]",
            "送得[真快|比说的还早]",
            "味道[很香|不咸不淡]",
        ],
        "差评": [
            "[汤|菜]已经凉了",
            "分量[太少|一口就没了]",
            "等了[两个|三个]钟头才送到",
            "味道[发苦|咸得没法吃]",
        ],
    },
    "room": {
        "好评": ["房间[干净|宽敞]又安静", "前台[热情|周到]", "床[很舒服|又大又软]", "早餐花样多"],
        "差评": [
            "房间[又脏又潮|有股霉味]",
            "前台[爱理不理|态度恶劣]",
            "隔壁吵得[睡不着|一夜没合眼]",
            "早餐没什么可吃",
        ],
    },
    "book": {
        "好评": [
            "故事[动人|一气呵成]",
            "文字[干净|有味道]",
            "印刷[清楚|精美]",
            "看得[停不下来|热泪盈眶]",
        ],
        "差评": [
            "故事[老套|东拼西凑]",
            "翻译[生硬|错字连篇]",
            "纸张[又薄又黄|一翻就掉页]",
            "看得[直打瞌睡|一头雾水]",
        ],
    },
}
ENDS = {
    "好评": ["下次还来[！|。]", "[强烈|]推荐[！|。]", "[很|非常]满意。", "值这个价[。|，五星]"],
    "差评": ["再也不来了[！|。]", "[千万|]别买[！|。]", "[很|非常]失望。", "白花了钱[。|，一星]"],
}


def records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` records, texts of 15 to 120 characters; the same seed gives the same records."""
    return draw_records(_record, World(f"classification {seed}"), count)


def _record(world: World) -> dict[str, Any]:
    choice, sample = world.random.choice, world.random.sample
    kind, label = choice(sorted(LEADS)), choice(sorted(ENDS))
    remarks = "，".join(sample(REMARKS[kind][label], choice((1, 2))))
    template = f"{choice(LEADS[kind])}，{remarks}。{choice(ENDS[label])}"
    return {"text": "".join(piece.text for piece in fill(template, Cast(world))), "label": label}
