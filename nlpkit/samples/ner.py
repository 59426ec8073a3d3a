"""Made-up named entity recognition: one to three sentences and every name of six kinds in them.

Spans are half-open character offsets, recorded while the text is put together. The gold is flat: of
a firm named after a place only the firm is marked. Books and films stand in the same brackets and
share their titles' form, so that the words around decide; schools, songs and quantities are names
that belong to no label.

    {"text": "柳栩妍在云泽。", "entities": [{"start": 0, "end": 3, "label": "人物"},
     {"start": 4, "end": 6, "label": "地点"}]}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nlpkit.samples._grammar import Cast, Piece, draw_records, fill, kind_of
from nlpkit.samples._world import World

LABELS = {
    "person": "人物",
    "place": "地点",
    "firm": "公司",
    "book": "书名",
    "film": "影视",
    "date": "日期",
}
"""Kind of name -> label; a kind that is not here is no entity."""

SENTENCES = [
    "<person1>[出生|生]于<place1>[，自幼爱好画画|]",
    "<person1>与<person2>在<place1>[会面|重逢]",
    "<date1>，<person1>从<place1>[飞往|赶往|迁居]<place2>",
    "<person1>[担任|出任|辞去]<firm1>[总裁|董事长|总工程师]",
    "<firm1>[宣布|否认][收购|起诉|注资]<firm2>",
    "<firm1>在<place1>[建厂|开店|招聘<number1>人]",
    "[小说|散文集|诗集]《<book1>》[由<date1>起连载|再版]",
    "<person1>的[小说|新书|诗集]《<book1>》[售出|加印]<number1>册",
    "读完<person1>写的《<book1>》，[他哭了|她笑了]",
    "[电影|电视剧|网剧|纪录片]《<film1>》[开机|杀青|定档<date1>]",
    "<person1>[执导|主演]的[影片|剧集]《<film1>》[票房|播放量]<number1>",
    "<person1>、<person2>[主演|联袂出演]《<film1>》",
    "[剧集|影片]《<film1>》改编自[小说|长篇]《<book1>》",
    "<person1>[演唱|翻唱]的[歌曲|单曲]《<song1>》[上线|走红]",
    "<date1>至<date2>，<person1>[就读|任教]于<school1>",
    "<school1>[校友|教授]<person1>[加盟|投资了]<firm1>",
    "<place1>、<place2>和<place3>[普降大雨|联合办展|通了高铁]",
    "[从|]<place1>到<place2>的[班车|轮渡][停运|已满员]",
    "<person1>（<date1>－<date2>），<place1>人",
    "<firm1>[成立于|上市时间为]<date1>[，员工<number1>人|]",
    "“[谁是|你认识]<person1>？”<person2>[问|反问]<person1>的[秘书|助理]",
    "[天气真好|今晚加班|收到快递了|转发抽奖]，[大家早点休息|明天见|记得带伞][😀|👍|]",
    "[销量|点击量|粉丝数][涨到|跌至]<number1>，[专家|网友][议论纷纷|十分意外]",
]

LEADS = [
    "",
    "",
    "",
    "[讯|快讯|ＮＥＷＳ]：",
    "【<place9>】",
    "<firm9>消息，",
    "记者<person9>报道：",
    "[🎬|🔥] ",
    "[Hi|OK]，",
]


def records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` records, texts of 15 to 120 characters; the same seed gives the same records."""
    return draw_records(_record, World(f"ner {seed}"), count)


def _record(world: World) -> dict[str, Any]:
    sentences = world.random.sample(SENTENCES, world.random.choice((1, 2, 2, 3)))
    template = world.random.choice(LEADS) + "".join(
        f"{sentence}[。|。|！|；]" for sentence in sentences
    )
    pieces = fill(template, Cast(world))
    return {"text": "".join(piece.text for piece in pieces), "entities": list(_entities(pieces))}


def _entities(pieces: list[Piece]) -> Iterator[dict[str, Any]]:
    """The entities among the pieces of a text, in the order of the text."""
    start = 0
    for piece in pieces:
        end = start + len(piece.text)
        if kind_of(piece.slot) in LABELS:
            yield {"start": start, "end": end, "label": LABELS[kind_of(piece.slot)]}
        start = end
