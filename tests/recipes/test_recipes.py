"""Recipes: raw lines in and records out, places of bad lines, and each recipe as a filter in a
shell."""

from __future__ import annotations

import gzip
import subprocess
import sys

import orjson
import pytest

import data_recipes
from nlpkit.errors import DataError, SettingsError

DUIE_1 = {
    "postag": [{"word": "《", "pos": "w"}],
    "text": "《雾灯》是许蓁的小说",
    "spo_list": [
        {
            "predicate": "作者",
            "object_type": "人物",
            "subject_type": "图书作品",
            "object": "许蓁",
            "subject": "雾灯",
        }
    ],
}
DUIE_2 = {
    "text": "许蓁在《雾灯》演船长",
    "spo_list": [
        {
            "predicate": "饰演",
            "subject": "许蓁",
            "subject_type": "人物",
            "object": {"@value": "船长", "inWork": "雾灯"},
            "object_type": {"@value": "角色", "inWork": "影视作品"},
        }
    ],
}
DUIE_LOCAL = {
    "id": 7,
    "text": "许蓁配音船长",
    "spo_list": [
        {
            "subject": "许蓁",
            "predicate": "配音",
            "object": "船长",
            "object_extra": {"inWork": "雾灯"},
        }
    ],
}
AUTHOR = {
    "subject": "雾灯",
    "predicate": "作者",
    "object": "许蓁",
    "subject_type": "图书作品",
    "object_type": "人物",
}
ROLE = {
    "subject": "许蓁",
    "predicate": "饰演",
    "object": "船长",
    "subject_type": "人物",
    "object_type": "角色",
}

GOLDEN = {
    "duie": (
        [DUIE_1, DUIE_2, DUIE_LOCAL],
        [
            {"text": DUIE_1["text"], "spo_list": [AUTHOR]},
            {"text": DUIE_2["text"], "spo_list": [{**ROLE, "object_extra": {"inWork": "雾灯"}}]},
            DUIE_LOCAL,
        ],
    ),
    "news_sro": (
        [
            {
                "text": "许蓁任职船厂\n",
                "sro_list": [{"subject": "许蓁", "object": "船厂", "relation": "任职"}],
            },
            {"text": "今天下雨。\u3000", "sro_list": []},
            {"id": 3, "text": "没有标注"},
        ],
        [
            {
                "text": "许蓁任职船厂\n",
                "spo_list": [{"subject": "许蓁", "predicate": "任职", "object": "船厂"}],
            },
            {"text": "今天下雨。\u3000", "spo_list": []},
            {"id": 3, "text": "没有标注"},
        ],
    ),
    "cluener": (
        [
            {
                "text": "许蓁到云泽，许蓁笑了",
                "label": {"name": {"许蓁": [[6, 7], [0, 1]]}, "address": {"云泽": [[3, 4]]}},
            },
            {"text": "今天下雨", "label": {}},
            {"id": 0, "text": "没有标注"},
        ],
        [
            {
                "text": "许蓁到云泽，许蓁笑了",
                "entities": [
                    {"start": 0, "end": 2, "label": "name"},
                    {"start": 3, "end": 5, "label": "address"},
                    {"start": 6, "end": 8, "label": "name"},
                ],
            },
            {"text": "今天下雨", "entities": []},
            {"id": 0, "text": "没有标注"},
        ],
    ),
    "ape210k": (
        [
            {
                "id": "1",
                "segmented_text": "3 个 5 是 多 少 ？",
                "original_text": "3个5是多少？",
                "ans": "15",
                "equation": "x=3*5",
            },
            {"id": "2", "original_text": "一半的一半", "ans": "25%", "equation": "x=(1/2)*(1/2)"},
            {"id": "3", "original_text": "没有答案"},
        ],
        [
            {"id": "1", "text": "3个5是多少？", "answer": "15", "equation": "x=3*5"},
            {"id": "2", "text": "一半的一半", "answer": "25%", "equation": "x=(1/2)*(1/2)"},
            {"id": "3", "text": "没有答案"},
        ],
    ),
    "math23k": (
        [
            {
                "id": "1",
                "original_text": "7的(1/2)",
                "equation": "x=7*(1/2)",
                "ans": "3((1)/(2))",
                "split": "train",
            },
            {"id": "2", "original_text": "[9-(1+2)]*2", "equation": "x=[9-(1+2)]*2", "ans": "12"},
            {"id": "3", "original_text": "没有答案"},
        ],
        [
            {
                "id": "1",
                "text": "7的(1/2)",
                "equation": "x=7*(1/2)",
                "answer": "3((1)/(2))",
                "split": "train",
            },
            {"id": "2", "text": "[9-(1+2)]*2", "equation": "x=[9-(1+2)]*2", "answer": "12"},
            {"id": "3", "text": "没有答案"},
        ],
    ),
}

GOLDEN |= {
    "kgclue": (
        [
            {"id": 0, "question": "云泽有多大？", "answer": "云泽（湖泊）|||面积 ||| 30平方千米"},
            {"id": 1, "question": "雾灯是谁写的？", "answer": "雾灯 ||| 作者 ||| 许蓁|||顾平"},
            {"id": 2, "question": "没有答案？"},
        ],
        [
            {"id": 0, "question": "云泽有多大？", "answer": "云泽（湖泊） ||| 面积 ||| 30平方千米"},
            {"id": 1, "question": "雾灯是谁写的？", "answer": "雾灯 ||| 作者 ||| 许蓁|||顾平"},
            {"id": 2, "question": "没有答案？"},
        ],
    ),
    "nlpcc_kbqa": (
        [
            "<question id=1>\t《雾灯》是谁写的？",
            "<triple id=1>\t雾灯 ||| 作者 ||| 许蓁",
            "<answer id=1>\t许蓁",
            "==================================================",
            "<question id=2>\t云泽有多大？",
            "<triple id=2>\t云泽 ||| 面积 |||",
            "<answer id=2>",
            "==================================================",
            "<question id=3>\t没有答案？",
        ],
        [
            {"id": 1, "question": "《雾灯》是谁写的？", "answer": "雾灯 ||| 作者 ||| 许蓁"},
            {"id": 3, "question": "没有答案？"},
        ],
    ),
}

GOLDEN["xiangqi"] = (
    [
        "對局\t1-0\t\th2e2 h9g7 h0g2",
        "殘局\t*\t3k5/9/4P4/9/9/9/9/9/9/4K4 b - - 0 1\td9d8",
        "對局\t*\t\t",
    ],
    [
        {"kind": "對局", "result": "1-0", "moves": ["h2e2", "h9g7", "h0g2"]},
        {
            "kind": "殘局",
            "result": "*",
            "fen": "3k5/9/4P4/9/9/9/9/9/9/4K4 b - - 0 1",
            "moves": ["d9d8"],
        },
    ],
)

TOWER = "灯塔1921年建成，1930年重修。"
SQUAD = {
    "version": "v1",
    "data": [
        {
            "title": "灯塔",
            "paragraphs": [
                {
                    "context": TOWER,
                    "qas": [
                        {
                            "id": "A_0",
                            "question": "灯塔何时建成？",
                            "answers": [
                                {"text": "1921年", "answer_start": 2},
                                {"text": "1921年", "answer_start": 2},
                            ],
                        },
                        {
                            "id": "A_1",
                            "question": "谁建了灯塔？",
                            "is_impossible": True,
                            "answers": [],
                        },
                        {"id": "A_2", "question": "何时重修？"},
                    ],
                }
            ],
        }
    ],
}
SQUAD_RECORDS = [
    {"id": "A_0", "question": "灯塔何时建成？", "context": TOWER, "answers": ["1921年"]},
    {"id": "A_1", "question": "谁建了灯塔？", "context": TOWER, "answers": []},
    {"id": "A_2", "question": "何时重修？", "context": TOWER},
]
GOLDEN |= {
    "cmrc2018": ([SQUAD], SQUAD_RECORDS),
    "drcd": ([SQUAD], SQUAD_RECORDS),
    "webqa": (
        [
            {
                "q_key": "Q_0",
                "question_tokens": ["谁", "写", "了", "Fog", "Lamp", "?"],
                "evidences": [
                    {
                        "evidence_tokens": ["许蓁", "写", "Fog", "Lamp", "3"],
                        "golden_answers": [["许", "蓁"]],
                    },
                    {"evidence_tokens": ["by", "Xu", "Zhen"], "golden_answers": [["Xu", "Zhen"]]},
                    {"evidence_tokens": ["今天", "下雨"], "golden_answers": [["no_answer"]]},
                ],
            },
            {"q_key": "Q_1", "question_tokens": ["谁"], "evidences": []},
            {
                "q_key": "Q_2",
                "question_tokens": ["何时"],
                "evidences": [{"evidence_tokens": ["今天"], "golden_answers": [["今天"]]}],
            },
        ],
        [
            {
                "id": "Q_0",
                "question": "谁写了Fog Lamp?",
                "passages": ["许蓁写Fog Lamp3", "by Xu Zhen", "今天下雨"],
                "answers": ["许蓁", "Xu Zhen"],
            },
            {"id": "Q_1", "question": "谁", "passages": [], "answers": []},
            {"id": "Q_2", "question": "何时", "passages": ["今天"], "answers": ["今天"]},
        ],
    ),
}

GOLDEN["ccks_el"] = (
    [
        {
            "text_id": "7",
            "text": "许蓁写了雾灯",
            "mention_data": [{"kb_id": "19", "mention": "雾灯", "offset": "4"}],
        },
        {
            "text_id": 8,
            "text": "雾灯由许蓁导演",
            "mention_data": [
                {"kb_id": "NIL_Person", "mention": "许蓁", "offset": 3},
                {"kb_id": "NIL", "mention": "雾灯", "offset": "0"},
            ],
        },
        {"text_id": "9", "text": "没有标注"},
    ],
    [
        {
            "text_id": "7",
            "text": "许蓁写了雾灯",
            "mentions": [{"start": 4, "end": 6, "entity": "19"}],
        },
        {
            "text_id": 8,
            "text": "雾灯由许蓁导演",
            "mentions": [
                {"start": 0, "end": 2, "entity": None},
                {"start": 3, "end": 5, "entity": None},
            ],
        },
        {"text_id": "9", "text": "没有标注"},
    ],
)

GOLDEN |= {
    "lcqmc": (
        ["怎么借书\t如何借书\t1", "{书\t怎么还书 \t0", "书\t \t0", "几点开门\t门开到几点\t0"],
        [
            {"text_a": "怎么借书", "text_b": "如何借书", "label": 1},
            {"text_a": "{书", "text_b": "怎么还书", "label": 0},
            {"text_a": "几点开门", "text_b": "门开到几点", "label": 0},
        ],
    ),
    "afqmc": (
        [
            {"sentence1": "怎么借书", "sentence2": "如何借书", "label": "1"},
            "几点开门\t门开到几点\t0",
        ],
        [
            {"text_a": "怎么借书", "text_b": "如何借书", "label": 1},
            {"text_a": "几点开门", "text_b": "门开到几点", "label": 0},
        ],
    ),
    "atec": (
        ["1\t\ufeff怎么借书\t如何借书\t1", "2\t几点开门\t门开到几点\t0"],
        [
            {"text_a": "怎么借书", "text_b": "如何借书", "label": 1},
            {"text_a": "几点开门", "text_b": "门开到几点", "label": 0},
        ],
    ),
    "stsb": (
        ["他在读书\t有人读书\t4.2", "他在读书\t天要下雨\t0"],
        [
            {"text_a": "他在读书", "text_b": "有人读书", "label": 4.2},
            {"text_a": "他在读书", "text_b": "天要下雨", "label": 0},
        ],
    ),
    "nlpcc_kb": (
        [
            "雾灯(小说) ||| 作者 ||| 许蓁",
            "云泽|||别 名|||云  泽湖 ||| 小湖",
            "云泽 ||| 面积 ||| ",
            "云泽 ||| 面积 ||| 30",
            "云泽 ||| 面积 ||| 30",
        ],
        ["雾灯(小说)\t作者\t许蓁", "云泽\t别 名\t云  泽湖 ||| 小湖", "云泽\t面积\t30"],
    ),
    "cmeee": (
        [
            {
                "text": "患儿发热，咳嗽",
                "entities": [
                    {"start_idx": 2, "end_idx": 3, "type": "sym", "entity": "发热"},
                    {"start_idx": 2, "end_idx": 3, "type": "sym", "entity": "发热"},
                    {"start_idx": 0, "end_idx": 3, "type": "dis", "entity": "患儿发热"},
                ],
            },
            {"text": "咳", "entities": [{"start_idx": 0, "end_idx": 0, "type": "sym"}]},
            {"text": "没有标注"},
        ],
        [
            {
                "text": "患儿发热，咳嗽",
                "entities": [
                    {"start": 2, "end": 4, "label": "sym", "text": "发热"},
                    {"start": 0, "end": 4, "label": "dis", "text": "患儿发热"},
                ],
            },
            {"text": "咳", "entities": [{"start": 0, "end": 1, "label": "sym", "text": "咳"}]},
            {"text": "没有标注"},
        ],
    ),
    "doccano": (
        [
            {
                "id": 7,
                "text": "许蓁写了雾灯",
                "label": [[0, 2, "人物"], [4, 6, "作品"], [3, 3, "空"]],
            },
            {
                "id": 8,
                "text": "许蓁写了雾灯",
                "entities": [
                    {"id": 1, "start_offset": 0, "end_offset": 2, "label": "人物"},
                    {"id": 2, "start_offset": 4, "end_offset": 6, "label": "作品"},
                ],
                "relations": [
                    {"id": 3, "from_id": 2, "to_id": 1, "type": "作者"},
                    {"id": 4, "from_id": 2, "to_id": 9, "type": "作者"},
                ],
                "Comments": [],
            },
            {"id": 9, "data": "水很清", "label": ["好评"], "by": "甲"},
        ],
        [
            {
                "id": 7,
                "text": "许蓁写了雾灯",
                "entities": [
                    {"start": 0, "end": 2, "label": "人物"},
                    {"start": 4, "end": 6, "label": "作品"},
                ],
            },
            {
                "id": 8,
                "text": "许蓁写了雾灯",
                "Comments": [],
                "entities": [
                    {"start": 0, "end": 2, "label": "人物"},
                    {"start": 4, "end": 6, "label": "作品"},
                ],
                "spo_list": [
                    {
                        "subject": "雾灯",
                        "predicate": "作者",
                        "object": "许蓁",
                        "subject_type": "作品",
                        "object_type": "人物",
                        "subject_span": [4, 6],
                        "object_span": [0, 2],
                    }
                ],
            },
            {"id": 9, "text": "水很清", "by": "甲", "label": "好评"},
        ],
    ),
    "label_studio": (
        [
            {
                "id": 7,
                "data": {"text": "😀许蓁写了雾灯", "source": "甲"},
                "annotations": [
                    {"was_cancelled": True, "result": []},
                    {
                        "result": [
                            {
                                "id": "a",
                                "type": "labels",
                                "value": {"start": 2, "end": 4, "text": "许蓁", "labels": ["人物"]},
                            },
                            {
                                "id": "b",
                                "type": "labels",
                                "value": {"start": 5, "end": 7, "text": "雾灯", "labels": ["作品"]},
                            },
                            {
                                "type": "relation",
                                "from_id": "a",
                                "to_id": "b",
                                "direction": "left",
                                "labels": ["作者"],
                            },
                            {"type": "rating", "value": {"rating": 3}},
                        ]
                    },
                    {"result": []},
                ],
            },
            {
                "id": 8,
                "text": "许蓁到了",
                "label": [{"start": 0, "end": 2, "text": "许蓁", "labels": ["人物"]}],
            },
            {
                "id": 9,
                "data": {"text": "水很清"},
                "annotations": [{"result": [{"type": "choices", "value": {"choices": ["好评"]}}]}],
            },
        ],
        [
            {
                "id": 7,
                "text": "😀许蓁写了雾灯",
                "source": "甲",
                "entities": [
                    {"start": 1, "end": 3, "label": "人物"},
                    {"start": 5, "end": 7, "label": "作品"},
                ],
                "spo_list": [
                    {
                        "subject": "雾灯",
                        "predicate": "作者",
                        "object": "许蓁",
                        "subject_type": "作品",
                        "object_type": "人物",
                        "subject_span": [5, 7],
                        "object_span": [1, 3],
                    }
                ],
            },
            {"id": 8, "text": "许蓁到了", "entities": [{"start": 0, "end": 2, "label": "人物"}]},
            {"id": 9, "text": "水很清", "label": "好评"},
        ],
    ),
}

NOTES = {
    "xiangqi": "note: 1 games without moves: left out\n",
    "nlpcc_kbqa": "note: 1 questions whose triple has an empty part: left out\n",
    "nlpcc_kb": "note: 1 triples with an empty part: left out\n"
    "note: 1 triples that come twice in a row: written once\n",
    "lcqmc": "note: 1 pairs with an empty side: left out\n",
    "cmeee": "note: 1 entities that come twice: kept once\n",
    "doccano": "note: 1 spans without a character: left out\n"
    "note: 1 relations one end of which is no entity: left out\n",
    "label_studio": "note: 1 further annotations of a text: left out\n"
    'note: 1 results of the kind "rating": left out\n',
}
"""What a recipe says on stderr of its golden lines."""

BAD = [
    ("lcqmc", "怎么借书\t如何借书", "expected 3 columns between tabs, got 2"),
    ("lcqmc", "怎么借书\t如何借书\t0.5", "label: expected 0 or 1, got '0.5'"),
    ("atec", "怎么借书\t如何借书\t1", "expected 4 columns between tabs, got 3"),
    ("stsb", "他在读书\t有人读书\tgut", "label: expected a grade, which is a number, got 'gut'"),
    ("afqmc", '{"sentence1": "怎么借书", "label": "1"}', 'field "sentence2": expected a string'),
    ("nlpcc_kb", "甲 ||| 乙", "expected \"subject ||| predicate ||| object\", got '甲 ||| 乙'"),
    (
        "cmeee",
        '{"text": "甲乙", "entities": [{"start_idx": 0, "end_idx": 0, "type": "a", "entity": "乙"}]}',
        "entity \"乙\": the text has '甲' from 0 to 0",
    ),
    ("cmeee", '{"text": "甲", "entities": [{"start_idx": 0}]}', 'missing field "end_idx"'),
    ("doccano", '{"text": "甲", "label": [[0, 2, "a"]]}', "[0, 2) is no span of the text of 1"),
    ("doccano", '{"text": "甲", "label": [[0, 1]]}', "expected [start, end, label], got [0, 1]"),
    ("doccano", '{"text": "甲", "label": ["a", "b"]}', "expected one label, got ['a', 'b']"),
    (
        "label_studio",
        '{"text": "甲", "label": [{"start": 0, "end": 1, "text": "乙", "labels": ["a"]}]}',
        "[0, 1) of the text is not '乙'",
    ),
    (
        "label_studio",
        '{"data": {"text": "甲"}, "annotations": [{"result": [{"type": "choices", "value": {}}]}]}',
        'missing field "choices"',
    ),
    (
        "kgclue",
        '{"question": "谁？", "answer": "甲 ||| 乙"}',
        'expected "subject ||| predicate ||| object"',
    ),
    (
        "kgclue",
        '{"question": "谁？", "answer": "甲 ||| ||| 乙"}',
        'expected "subject ||| predicate ||| object"',
    ),
    ("kgclue", '{"answer": "甲 ||| 乙 ||| 丙"}', 'missing field "question"'),
    ("nlpcc_kbqa", "<triple id=3>\t甲 ||| 乙", 'expected "subject ||| predicate ||| object"'),
    ("nlpcc_kbqa", "<triple id=4>\t甲 ||| 乙 ||| 丙", "triple 4 without its question"),
    ("nlpcc_kbqa", "甲是谁？", 'expected "<question id=...>"'),
    (
        "ccks_el",
        '{"text": "甲乙", "mention_data": [{"mention": "乙", "offset": "0", "kb_id": "1"}]}',
        'offset 0 is "甲" in the text: expected "乙"',
    ),
    (
        "ccks_el",
        '{"text": "甲", "mention_data": [{"mention": "甲", "offset": -1, "kb_id": "1"}]}',
        "got -1",
    ),
    (
        "ccks_el",
        '{"text": "甲", "mention_data": [{"mention": "甲", "offset": "0"}]}',
        'missing field "kb_id"',
    ),
    ("duie", "[]", "expected a JSON object"),
    ("duie", '{"spo_list": []}', 'missing field "text"'),
    ("duie", '{"text": "甲", "spo_list": {}}', 'field "spo_list": expected list, got dict'),
    ("duie", '{"text": "甲", "spo_list": ["乙"]}', 'expected an object with "object", got str'),
    (
        "duie",
        '{"text": "甲", "spo_list": [{"object": "乙", "predicate": "丙"}]}',
        'missing field "subject"',
    ),
    ("duie", '{"text": "甲", "spo_list": [{"object": {"inWork": "乙"}}]}', 'missing slot "@value"'),
    (
        "duie",
        '{"text": "甲", "spo_list": [{"object": {"@value": 1}}]}',
        'slot "@value": expected str, got int',
    ),
    (
        "duie",
        '{"text": "甲", "spo_list": [{"object": "乙", "object_extra": "丙"}]}',
        '"object_extra": expected dict',
    ),
    (
        "news_sro",
        '{"text": "甲", "sro_list": [{"subject": "甲", "object": "乙"}]}',
        'missing field "relation"',
    ),
    ("news_sro", '{"text": null}', 'field "text": expected str, got NoneType'),
    (
        "cluener",
        '{"text": "甲乙", "label": {"name": {"乙": [[0, 0]]}}}',
        'span [0, 0] is "甲" in the text: expected "乙"',
    ),
    ("cluener", '{"text": "甲乙", "label": {"name": {"乙": [[-1, -1]]}}}', "span [-1, -1]"),
    (
        "cluener",
        '{"text": "甲乙", "label": {"name": {"乙": [1, 1]}}}',
        'span of "乙": expected [first, last], got 1',
    ),
    (
        "cluener",
        '{"text": "甲乙", "label": {"name": ["乙"]}}',
        'field "name": expected dict, got list',
    ),
    ("ape210k", '{"text": "甲"}', 'missing field "original_text"'),
    ("ape210k", '{"original_text": "甲", "equation": "x=1"}', 'missing field "ans"'),
    (
        "math23k",
        '{"original_text": "甲", "equation": 1, "ans": "1"}',
        'field "equation": expected str, got int',
    ),
]


def lines(records) -> bytes:
    return b"".join(
        (r.encode() if isinstance(r, str) else orjson.dumps(r)) + b"\n" for r in records
    )


def convert(recipe, path, **options):
    return list(data_recipes.load(recipe).convert([str(path)], **options))


def shell(recipe, *arguments, stdin=b""):
    command = [sys.executable, "-m", f"data_recipes.{recipe}", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


@pytest.fixture(params=sorted(GOLDEN))
def recipe(request):
    return request.param


@pytest.fixture
def raw(tmp_path, recipe):
    path = tmp_path / "raw.json"
    path.write_bytes(lines(GOLDEN[recipe][0]))
    return path


def test_three_raw_lines_give_three_records(recipe, raw):
    assert convert(recipe, raw) == GOLDEN[recipe][1]


def test_byte_order_mark_line_ends_blank_lines_and_gz_are_accepted(recipe, raw, tmp_path):
    windows = tmp_path / "windows.json.gz"
    windows.write_bytes(
        gzip.compress(b"\xef\xbb\xbf" + raw.read_bytes().replace(b"\n", b"\r\n\r\n"))
    )
    assert convert(recipe, windows) == GOLDEN[recipe][1]


def test_stdin_is_read_without_a_path_and_with_a_dash(recipe, raw):
    for arguments in ((), ("-",)):
        done = shell(recipe, *arguments, stdin=raw.read_bytes())
        assert (done.returncode, done.stderr.decode()) == (0, NOTES.get(recipe, ""))
        assert done.stdout == lines(GOLDEN[recipe][1])


@pytest.mark.parametrize(("recipe", "line", "why"), BAD)
def test_a_bad_line_is_named_by_file_and_line(recipe, line, why, tmp_path):
    path = tmp_path / "raw.json"
    path.write_bytes(lines(GOLDEN[recipe][0][-1:]) + line.encode() + b"\n")
    with pytest.raises(DataError) as caught:
        convert(recipe, path)
    assert caught.value.message.startswith(f"{path}:2: ")
    assert why in caught.value.message


@pytest.mark.parametrize(
    "raw",
    [
        {
            "Q_0": {
                "question": "谁写的？",
                "evidences": {
                    "Q_0#1": {"evidence": "许蓁写的", "answer": ["许蓁", "no_answer"]},
                    "Q_0#2": {"evidence": "今天下雨", "answer": ["no_answer"]},
                },
            }
        },
        [
            {
                "id": "Q_0",
                "question": "谁写的？",
                "passages": [
                    {"passage": "许蓁写的", "answer": "许蓁"},
                    {"passage": "今天下雨", "answer": ""},
                ],
            }
        ],
    ],
)
@pytest.mark.parametrize("indent", [0, orjson.OPT_INDENT_2])
def test_webqa_is_read_in_its_other_formats(tmp_path, raw, indent):
    path = tmp_path / "raw.json"
    path.write_bytes(orjson.dumps(raw, option=indent))
    expected = {
        "id": "Q_0",
        "question": "谁写的？",
        "passages": ["许蓁写的", "今天下雨"],
        "answers": ["许蓁"],
    }
    assert convert("webqa", path) == [expected]


def changed(*path, value):
    """SQUAD with another value at a place."""
    copy = orjson.loads(orjson.dumps(SQUAD))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


QUESTION = ("data", 0, "paragraphs", 0, "qas", 0)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ([], ': expected an object with "data", got list'),
        ({}, ': missing field "data"'),
        (changed("data", 0, value="x"), ': data[0]: expected an object with "paragraphs", got str'),
        (
            changed(*QUESTION[:4], "context", value=3),
            ': data[0].paragraphs[0]: field "context": expected str, got int',
        ),
        (
            changed(*QUESTION, value="x"),
            ': data[0].paragraphs[0].qas[0]: expected an object with "question", got str',
        ),
        (
            changed(*QUESTION, "answers", value=["x"]),
            ".qas[0]: answers[0]: expected an object, got 'x'",
        ),
        (
            changed(*QUESTION, "answers", 0, "text", value="1922年"),
            '.qas[0]: answer "1922年" is not in its paragraph',
        ),
    ],
)
def test_what_is_not_squad_is_named_by_its_place(tmp_path, raw, why):
    path = tmp_path / "raw.json"
    path.write_bytes(orjson.dumps(raw))
    with pytest.raises(DataError) as caught:
        convert("cmrc2018", path)
    assert caught.value.message.startswith(str(path))
    assert why in caught.value.message


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"question_tokens": ["x"]}', ':1: missing field "evidences"'),
        (
            b'{"question_tokens": "x", "evidences": []}',
            ':1: field "question_tokens": expected list, got str',
        ),
        (b'{"question_tokens": [3], "evidences": []}', ":1: expected a list of tokens, got [3]"),
        (b'{"Q_0": {"evidences": {"a": {"evidence": "x"}}}}', ': Q_0: missing field "answer"'),
        (b'{"Q_0": 3}', ': Q_0: expected an object with "passages", got int'),
        (b'[{"question": "x"}]', ': [0]: missing field "passages"'),
        (b"3", ": expected a list of questions, got int"),
        (b"[{", ": not valid JSON"),
        (b"", ": not valid JSON"),
    ],
)
def test_what_is_not_webqa_is_named_by_its_place(tmp_path, raw, why):
    path = tmp_path / "raw.json"
    path.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        convert("webqa", path)
    assert caught.value.message.startswith(f"{path}{why}")


def test_answers_beside_their_offsets_are_counted(tmp_path, capsys):
    path = tmp_path / "raw.json"
    path.write_bytes(orjson.dumps(changed(*QUESTION, "answers", 1, "answer_start", value=3)))
    assert convert("cmrc2018", path) == SQUAD_RECORDS
    assert (
        capsys.readouterr().err
        == "note: 1 questions with an answer beside its offset: its text is taken\n"
    )


def test_good_lines_before_a_bad_one_are_written_first():
    done = shell("cluener", stdin=lines([{"text": "好"}]) + b"{\n")
    assert done.returncode == 3
    assert done.stdout == lines([{"text": "好"}])
    assert done.stderr.startswith(b"error: stdin:2: not valid JSON")


def test_a_missing_file_is_an_error_of_data(tmp_path):
    done = shell("duie", tmp_path / "none.json")
    assert done.returncode == 3
    assert b"none.json: cannot be read" in done.stderr


def test_a_reader_that_goes_away_ends_the_filter_silently(tmp_path):
    path = tmp_path / "raw.json"
    path.write_bytes(lines([{"text": "雾" * 100}] * 3000))
    command = f"{sys.executable} -m data_recipes.news_sro {path} | head -n 1 > /dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


def test_duie_reads_its_own_output(tmp_path):
    path = tmp_path / "again.json"
    path.write_bytes(lines(GOLDEN["duie"][1]))
    assert convert("duie", path) == GOLDEN["duie"][1]


def test_duie_slots_become_triples(tmp_path):
    path = tmp_path / "raw.json"
    path.write_bytes(lines([DUIE_2, DUIE_LOCAL]))
    first, second = convert("duie", path, slots=True)
    in_work = {**ROLE, "predicate": "饰演.inWork", "object": "雾灯", "object_type": "影视作品"}
    assert first["spo_list"] == [ROLE, in_work]
    assert second["spo_list"] == [
        {"subject": "许蓁", "predicate": "配音", "object": "船长"},
        {"subject": "许蓁", "predicate": "配音.inWork", "object": "雾灯"},
    ]
    assert orjson.loads(shell("duie", "--slots", path).stdout.splitlines()[0]) == first


@pytest.mark.parametrize("chosen", ["作者,导演", ["作者", "导演"]])
def test_duie_lines_say_which_relations_they_are_complete_for(chosen, tmp_path):
    path = tmp_path / "raw.json"
    path.write_bytes(lines([DUIE_1, {"text": "没有标注"}]))
    with_gold, without = convert("duie", path, complete_for=chosen)
    assert with_gold["predicates"] == ["作者", "导演"]
    assert without == {"text": "没有标注"}


def test_duie_seen_takes_a_thousandth_of_the_triples(tmp_path):
    path = tmp_path / "raw.json"
    rare = {"text": "乙甲", "spo_list": [{"subject": "甲", "predicate": "号", "object": "乙"}]}
    path.write_bytes(lines([DUIE_1] * 1000 + [rare]))
    assert {
        tuple(record["predicates"]) for record in convert("duie", path, complete_for="seen")
    } == {("作者",)}
    path.write_bytes(lines([DUIE_1] * 999 + [rare]))
    records = [
        orjson.loads(line)
        for line in shell("duie", "--complete-for", "seen", path).stdout.splitlines()
    ]
    assert {tuple(record["predicates"]) for record in records} == {("作者", "号")}
    assert records[-1]["spo_list"] == rare["spo_list"]


def test_duie_tells_the_version_that_a_line_was_annotated_for(tmp_path):
    def line(*triples):
        return {
            "text": "甲乙",
            "spo_list": [{"subject": "甲", "predicate": p, "object": o} for p, o in triples],
        }

    path = tmp_path / "raw.json"
    slot = {"@value": "乙"}
    told = [
        line(("作者", "乙")),
        line(("作者", "乙"), ("民族", "乙")),
        line(("校长", "乙")),
        line(("作者", slot)),
    ]
    path.write_bytes(
        lines([*told, line(("民族", "乙"), ("校长", "乙")), line(), {"text": "没有标注"}])
    )
    *given, none = convert("duie", path, complete_for="version")
    found = [record["predicates"] for record in given]
    assert none == {"text": "没有标注"}
    assert [len(names) for names in found] == [
        41,
        49,
        48,
        48,
        56,
        41,
    ]  # 1.0 has 49 relations, 2.0 has 48
    assert all(len(names) == len(set(names)) for names in found)
    assert "身高" in found[1]
    assert "身高" not in found[0] + found[2] + found[3]
    sloted = [
        record["predicates"]
        for record in list(convert("duie", path, complete_for="version", slots=True))[:-1]
    ]
    assert [len(names) for names in sloted] == [41, 49, 55, 55, 63, 41]


def test_every_recipe_has_its_golden_lines_and_an_unknown_one_a_near_miss():
    assert data_recipes.recipes() == sorted([*GOLDEN, "bio"])  # see test_annotations
    assert data_recipes.load("news-sro") is data_recipes.load("news_sro")
    with pytest.raises(SettingsError, match='unknown recipe "clue_ner"; did you mean "cluener"'):
        data_recipes.load("clue_ner")


def test_pairs_that_are_alike_make_groups(tmp_path):
    path = tmp_path / "raw.txt"
    pairs = [("甲", "乙", 1), ("丙", "丁", 1), ("丙", "戊", 0), ("己", "乙", 1), ("庚", "庚", 1)]
    path.write_text("".join(f"{a}\t{b}\t{label}\n" for a, b, label in pairs), encoding="utf-8")
    groups = {}
    for record in convert("lcqmc", path, groups=True):
        groups.setdefault(record["group"], []).append(record["text"])
    assert groups == {1: ["甲", "乙", "己"], 2: ["丙", "丁"]}


def test_options_are_read_from_settings():
    settings = ["slots=true", "complete-for=作者,导演"]
    assert data_recipes.parse_options("duie", settings) == {
        "slots": True,
        "complete_for": "作者,导演",
    }
    assert data_recipes.parse_options("cluener", []) == {}


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("slot=true", 'unknown option "slot"; did you mean "slots"'),
        ("slots=ja", 'expected true or false, got "ja"'),
    ],
)
def test_a_wrong_option_is_a_settings_error(setting, why):
    with pytest.raises(SettingsError, match=why):
        data_recipes.parse_options("duie", [setting])


@pytest.mark.parametrize(
    ("recipe", "line", "hint"),
    [
        ("cluener", {"text": "许蓁写书", "spo_list": []}, "duie"),
        ("duie", {"text": "许蓁写书", "label": {}}, "cluener"),
        ("duie", {"text": "许蓁写书", "sro_list": []}, "news_sro"),
        ("cluener", {"sentence1": "借书", "sentence2": "还书", "label": "0"}, "afqmc"),
    ],
)
def test_the_file_of_another_data_set_is_refused(tmp_path, recipe, line, hint):
    file = tmp_path / "raw.jsonl"
    file.write_bytes(orjson.dumps(line))
    with pytest.raises(DataError, match=r"raw.jsonl:1: missing field") as caught:
        list(data_recipes.load(recipe).convert([str(file)]))
    assert hint in caught.value.hint
