"""Made-up relation extraction: short encyclopaedic sentences and every triple that they state.

A record is one or two sentences, each either a written-out statement (`STATEMENTS`, often about two
subjects whose objects must not be mixed up) or a profile: a head and some clauses about it
(`PROFILES`). Around them stand words that state nothing but hold further names, and one record in
twelve states nothing at all. The gold is exact and complete by construction: whoever writes a
template writes its triples beside it. A name may occur several times, and a place also inside the
name of a firm or a school.

    {"text": "电影《沉默的灯塔》由柳栩妍执导。", "spo_list": [{"subject": "沉默的灯塔", "predicate": "导演",
     "object": "柳栩妍", "subject_type": "影视作品", "object_type": "人物"}]}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from nlpkit.samples._grammar import Cast, draw_records, fill
from nlpkit.samples._world import World

RELATIONS = {
    "作者": ("图书作品", "人物"),
    "导演": ("影视作品", "人物"),
    "主演": ("影视作品", "人物"),
    "歌手": ("歌曲", "人物"),
    "出生地": ("人物", "地点"),
    "出生日期": ("人物", "日期"),
    "毕业院校": ("人物", "学校"),
    "父亲": ("人物", "人物"),
    "妻子": ("人物", "人物"),
    "丈夫": ("人物", "人物"),
    "创始人": ("机构", "人物"),
    "总部地点": ("机构", "地点"),
    "成立日期": ("机构", "日期"),
}
"""Predicate -> (subject type, object type)."""

INVERSE = {"妻子": "丈夫", "丈夫": "妻子"}
"""A predicate that is always stated both ways."""

Templates = dict[str, list[str]]
"""`subject slot, predicate, object slot; ...` -> the wordings that state just these triples."""

STATEMENTS: Templates = {
    "book1 作者 person1": [
        "《<book1>》是<person1>[创作|撰写]的[长篇小说|散文集|科幻小说]",
        "最近，《<book1>》[火了|卖断货了]，很多人不知道《<book1>》是<person1>写的",
        "[书评：|]《<book1>》[好看吗|火了]？《<book1>》的作者叫<person1>",
        "<person1>写的《<book1>》[入围了今年的奖项|再版了]",
    ],
    "book1 作者 person1; book2 作者 person2": [
        "<person1>写了《<book1>》，<person2>写了《<book2>》",
        "《<book1>》的作者<person1>和《<book2>》的作者<person2>[同台签售|都到场了]",
    ],
    "book1 作者 person1; book2 作者 person1": ["<person1>著有《<book1>》《<book2>》[等作品|]"],
    "book1 作者 person1; book1 作者 person2": [
        "<person1>、<person2>合著的《<book1>》[再版了|上架了]"
    ],
    "film1 导演 person1; film1 主演 person2; film1 主演 person3": [
        "[电影|电视剧]《<film1>》由<person1>执导，<person2>、<person3>主演",
        "<person1>执导的《<film1>》[开机|杀青]，<person2>和<person3>领衔主演",
    ],
    "film1 导演 person1; film2 导演 person2": [
        "<person1>执导的《<film1>》和<person2>执导的《<film2>》[同日上映|撞档]",
        "《<film1>》的导演是<person1>，《<film2>》的导演是<person2>",
    ],
    "film1 导演 person1; film1 主演 person1": ["<person1>自导自演的《<film1>》[定档|上映]"],
    "film1 主演 person1; film2 主演 person2": [
        "<person1>主演《<film1>》，<person2>主演《<film2>》"
    ],
    "film1 主演 person1; book1 作者 person2": [
        "<person1>主演的剧集《<film1>》改编自<person2>的小说《<book1>》"
    ],
    "song1 歌手 person1": [
        "[歌曲|单曲]《<song1>》由<person1>演唱",
        "<person1>[现场|深情]演唱了《<song1>》",
    ],
    "song1 歌手 person1; song2 歌手 person2": [
        "<person1>唱的《<song1>》比<person2>唱的《<song2>》[好听|更火]",
        "歌手<person1>演唱了《<song1>》，随后<person2>演唱了《<song2>》",
    ],
    "firm1 创始人 person1; firm1 成立日期 date1; firm1 总部地点 place1": [
        "<firm1>由<person1>于<date1>创立，总部[位于|设在]<place1>",
        "<date1>，<person1>创立了<firm1>，总部[位于|设在]<place1>",
    ],
    "firm1 创始人 person1; person1 父亲 person2": [
        "<firm1>的创始人<person1>[说|表示]，父亲<person2>从不看好"
    ],
    "firm1 创始人 person1; firm2 创始人 person2": [
        "<firm1>创始人<person1>与<firm2>创始人<person2>[握手言和|隔空论战]",
        "<person1>创办了<firm1>，<person2>创办了<firm2>",
    ],
    "firm1 成立日期 date1; firm2 成立日期 date2": ["<firm1>成立于<date1>，<firm2>成立于<date2>"],
    "firm1 总部地点 place1; firm2 总部地点 place2": [
        "<firm1>（总部：<place1>）与<firm2>（总部：<place2>）签约"
    ],
    "school1 成立日期 date1": [
        "<school1>[创建|成立]于<date1>，[是一所公办高校|现有学生<number1>人]"
    ],
    "person1 出生地 place1; person2 出生地 place2; person1 毕业院校 school1; person2 毕业院校 school1": [
        "<person1>出生于<place1>，<person2>出生于<place2>，两人都毕业于<school1>",
    ],
    "person1 出生日期 date1; person2 出生日期 date2": [
        "<person1>生于<date1>，<person2>生于<date2>"
    ],
    "person1 毕业院校 school1; person2 毕业院校 school2": [
        "<person1>毕业于<school1>，<person2>毕业于<school2>"
    ],
    "person2 父亲 person1": [
        "<person1>是<person2>的父亲",
        "<person1>[老先生|]，<person2>之父，[酷爱钓鱼|已退休]",
    ],
    "person1 父亲 person3; person2 父亲 person3": ["<person1>和<person2>的父亲都是<person3>"],
    "person1 妻子 person2": [
        "<person1>[携|与]妻子<person2>[亮相|赴宴]",
        "<person1>娶了<person2>，[婚礼低调|轰动一时]",
    ],
    "person1 丈夫 person2": [
        "<person1>嫁给了<person2>",
        "<person1>的丈夫<person2>[从不露面|也是演员]",
    ],
}


class Profile(NamedTuple):
    """Ways to name a subject, groups of clauses about it in any order, and groups that may follow
    them.

    A clause about a relative comes last: what followed it could be said of the relative.
    """

    heads: list[str]
    clauses: list[Templates]
    closing: list[Templates]


PROFILES = [
    Profile(
        [
            "<person1>",
            "<person1>（[简历|人物]）",
            "[作家|演员|歌手|学者]<person1>",
            "<person1>，[作家|演员|商人]",
        ],
        [
            {
                "person1 出生地 place1": ["出生于<place1>", "出生地：<place1>"],
                "person1 出生日期 date1": ["<date1>出生", "生于<date1>", "出生日期：<date1>"],
                "person1 出生日期 date1; person1 出生地 place1": ["<date1>[出生|生]于<place1>"],
            },
            {
                "person1 毕业院校 school1": [
                    "[毕业于|毕业院校：]<school1>",
                    "从<school1>毕业后[下海|留学]",
                ]
            },
            {
                "book1 作者 person1": ["著有《<book1>》", "撰写了[小说|]《<book1>》"],
                "book1 作者 person1; book2 作者 person1": ["著有《<book1>》《<book2>》"],
            },
            {
                "film1 导演 person1": ["执导[电影|电视剧|]《<film1>》"],
                "film1 主演 person1": ["主演[电影|电视剧|]《<film1>》"],
                "song1 歌手 person1": ["演唱了《<song1>》"],
            },
            {"firm1 创始人 person1": ["创办了<firm1>", "是<firm1>的创始人"]},
            {"": ["[曾|]游历<place4>", "爱读《<book4>》", "粉丝<number4>"]},
        ],
        [
            {"person1 父亲 person2": ["父亲是<person2>", "其父<person2>[是一名教师|曾任船长]"]},
            {
                "person1 妻子 person3": ["妻子是<person3>", "与妻子<person3>[感情很好|相识多年]"],
                "person1 丈夫 person3": ["丈夫是<person3>", "与丈夫<person3>[感情很好|相识多年]"],
            },
        ],
    ),
    Profile(
        ["<firm1>", "<firm1>（[简介|百科]）", "关于<firm1>：<firm1>"],
        [
            {"firm1 总部地点 place1": ["总部[位于|设在|：]<place1>"]},
            {"firm1 成立日期 date1": ["成立于<date1>", "<date1>[正式|]成立"]},
            {"": ["员工<number2>人", "年营收<number3>元", "在<place4>设有分店"]},
        ],
        [
            {
                "firm1 创始人 person1": ["由<person1>创办", "创始人是<person1>", "创始人<person1>"],
                "firm1 创始人 person1; firm1 创始人 person2": [
                    "由<person1>和<person2>创办",
                    "创始人<person1>、<person2>",
                ],
            },
        ],
    ),
    Profile(
        ["[电影|电视剧|]《<film1>》"],
        [
            {"film1 导演 person1": ["由<person1>执导", "导演：<person1>"]},
            {
                "film1 主演 person2": ["<person2>主演", "主演：<person2>"],
                "film1 主演 person2; film1 主演 person3": [
                    "<person2>、<person3>主演",
                    "主演：<person2>、<person3>",
                ],
            },
            {"": ["<date4>上映", "票房<number4>元", "在<place4>取景"]},
        ],
        [],
    ),
]

SILENT = [
    "<person1>[昨日|]在<place1>观看了《<film1>》",
    "<person1>向<person2>推荐了《<song1>》和《<book1>》",
    "<date1>，<person1>抵达<place1>，<person2>[到机场迎接|没有同行]",
    "<school1>与<firm1>[签署协议|共建实验室]，<person1>出席",
    "<firm1>的员工[人手一册|都爱读]《<book1>》",
    "《<film1>》和《<film2>》[谁更值得看|都下架了]？",
]
"""Sentences that state no triple."""

LEADS = [
    "",
    "",
    "",
    "",
    "据<firm9>官网消息，",
    "记者<person9>报道：",
    "[🎬|🔥|📚|【热点】]",
    "[No.7|第８期|Vol.12]：",
    "<place9>讯，",
]
TAILS = [
    "。",
    "。",
    "。",
    "！",
    "，<person8>[发来贺电|点赞]。",
    "[😀|👍👍]",
    "（图：<firm8>）",
    "，[引发热议|ＯＫ]！",
]
OTHER_BRACKETS = str.maketrans("《》", "「」")


def records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` records, texts of 15 to 120 characters; the same seed gives the same records."""
    return draw_records(_record, World(f"gplinker {seed}"), count)


def _record(world: World) -> dict[str, Any]:
    template, stated = (
        (world.random.choice(SILENT), "") if world.chance(1 / 12) else _sentence(world)
    )
    if stated and world.chance(1 / 6):
        more, also_stated = _sentence(world)
        template, stated = f"{template}。{_others(more)}", f"{stated}; {_others(also_stated)}"
    template = world.random.choice(LEADS) + template + world.random.choice(TAILS)
    cast = Cast(world)
    text = "".join(piece.text for piece in fill(template, cast))
    if world.chance(0.1):
        text = text.translate(OTHER_BRACKETS)
    return {"text": text, "spo_list": list(_triples(stated, cast))}


def _sentence(world: World) -> tuple[str, str]:
    """(template, the triples it states) of one statement or one profile."""
    if world.chance(0.5):
        return _wording(world, STATEMENTS)
    profile = world.random.choice(PROFILES)
    groups = world.random.sample(profile.clauses, world.random.randint(1, 3))
    groups += [group for group in profile.closing if world.chance(0.5)]
    clauses = [_wording(world, group) for group in groups]
    template = "，".join([world.random.choice(profile.heads), *(wording for wording, _ in clauses)])
    return template, "; ".join(stated for _, stated in clauses if stated)


def _wording(world: World, templates: Templates) -> tuple[str, str]:
    stated = world.random.choice(list(templates))
    return world.random.choice(templates[stated]), stated


def _others(slots: str) -> str:
    """The same template or triples about other names: `person1` becomes `person12`."""
    return re.sub(r"([a-z]\d)", r"\g<1>2", slots)


def _triples(stated: str, cast: Cast) -> Iterator[dict[str, str]]:
    for subject, predicate, object_ in (
        triple.split() for triple in stated.split(";") if triple.strip()
    ):
        yield _triple(cast.name(subject), predicate, cast.name(object_))
        if predicate in INVERSE:
            yield _triple(cast.name(object_), INVERSE[predicate], cast.name(subject))


def _triple(*triple: str) -> dict[str, str]:
    fields = ("subject", "predicate", "object", "subject_type", "object_type")
    return dict(zip(fields, (*triple, *RELATIONS[triple[1]]), strict=True))
