"""Recipes for what people have: tagged tokens, exports of annotation tools, other layouts of public
sets. What goes in can be told from what comes out; what is left out is counted."""

import orjson
import pytest

import data_recipes
from nlpkit.errors import DataError, SettingsError

TAGGED = """许\tB-人物
蓁\tI-人物
到\tO
云\tB-地点
泽\tI-地点
泽\tB-地点

今 O
天 O
"""


def convert(recipe, path, raw, **options):
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return list(data_recipes.load(recipe).convert([str(path)], **options))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "raw"


def tags_of(record):
    """The tags of the characters of a record, as in the file that it was read from."""
    tags = ["O"] * len(record["text"])
    for entity in record["entities"]:
        for place in range(entity["start"], entity["end"]):
            tags[place] = f"{'B' if place == entity['start'] else 'I'}-{entity['label']}"
    return tags


def test_tagged_tokens_can_be_told_from_their_records(file):
    records = convert("bio", file, TAGGED)
    assert records[0] == {
        "text": "许蓁到云泽泽",
        "entities": [
            {"start": 0, "end": 2, "label": "人物"},
            {"start": 3, "end": 5, "label": "地点"},
            {"start": 5, "end": 6, "label": "地点"},
        ],
    }
    written = [
        "".join(
            f"{character} {tag}\n"
            for character, tag in zip(record["text"], tags_of(record), strict=True)
        )
        for record in records
    ]
    assert "\n".join(written) == TAGGED.replace("\t", " ")
    assert convert("bio", file, TAGGED.replace("\n", "\r\n").encode("utf-8-sig")) == records


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-a M-a E-a S-b O", [(0, 3, "a"), (3, 4, "b")]),
        ("B_a I_a L_a U_b O", [(0, 3, "a"), (3, 4, "b")]),
        ("B-a I-a E-a E-a O", [(0, 3, "a"), (3, 4, "a")]),
        ("I-a I-a I-b O I-b", [(0, 2, "a"), (2, 3, "b"), (4, 5, "b")]),
        ("B-a-b I-a-b O O O", [(0, 2, "a-b")]),
    ],
)
def test_schemes_of_tags(file, tags, spans):
    raw = "".join(f"{c} x {tag}\n" for c, tag in zip("甲乙丙丁戊", tags.split(), strict=True))
    (record,) = convert("bio", file, raw)
    assert [tuple(entity.values()) for entity in record["entities"]] == spans


def test_what_tagged_files_leave_open_is_counted(file, capsys):
    raw = "-DOCSTART- -X- O O\n\n甲 I-a\n O\n乙 O\n"
    assert convert("bio", file, raw) == [
        {"text": "甲 乙", "entities": [{"start": 0, "end": 1, "label": "a"}]}
    ]
    assert capsys.readouterr().err == (
        "note: 1 lines that begin a document: left out\n"
        "note: 1 lines with a tag alone: the token is a space\n"
        "note: 1 entities that no tag begins: they begin where they go on\n"
    )


def test_latin_words_are_parted_and_latin_letters_are_not(file):
    assert convert("bio", file, "用 O\nXu B-a\nZhen I-a\n的 O\n") == [
        {"text": "用Xu Zhen的", "entities": [{"start": 1, "end": 8, "label": "a"}]}
    ]
    assert convert("bio", file, "用 O\nX B-a\nu I-a\n")[0]["text"] == "用Xu"


CASREL = {"text": "《雾灯》是许蓁的小说", "triple_list": [["雾灯", "作者", "许蓁"]]}
TPLINKER = {
    "id": "a_1",
    "text": "《雾灯》是许蓁的小说",
    "relation_list": [
        {
            "subject": "雾灯",
            "object": "许蓁",
            "subj_char_span": [1, 3],
            "obj_char_span": [5, 7],
            "predicate": "作者",
        }
    ],
    "entity_list": [{"text": "雾灯", "type": "作品", "char_span": [1, 3]}],
}


@pytest.mark.parametrize("as_list", [True, False])
def test_lines_of_casrel_and_tplinker_are_told_from_their_records(file, as_list):
    lines = [CASREL, TPLINKER]
    raw = orjson.dumps(lines, option=orjson.OPT_INDENT_2)
    if not as_list:
        raw = b"\n".join(map(orjson.dumps, lines))
    casrel, tplinker = convert("duie", file, raw)
    (triple,) = casrel["spo_list"]
    assert triple == {"subject": "雾灯", "predicate": "作者", "object": "许蓁"}
    (triple,) = tplinker["spo_list"]
    assert triple.pop("subject_span") == [1, 3]
    assert triple.pop("object_span") == [5, 7]
    assert triple == {"subject": "雾灯", "predicate": "作者", "object": "许蓁"}
    assert {**tplinker, "relation_list": TPLINKER["relation_list"]} == {
        **TPLINKER,
        "spo_list": tplinker["spo_list"],
    }


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"text": "甲", "triple_list": [["甲", "乙"]]}, ':1: field "triple_list": expected'),
        ({"text": "甲", "triple_list": {}}, ':1: field "triple_list": expected list, got dict'),
        ({"text": "甲", "relation_list": ["甲"]}, ":1: relation_list[0]: expected an object"),
        (
            {"text": "甲", "relation_list": [{"subject": "甲", "subj_char_span": [0, 9]}]},
            ":1: [0, 9) is no span of the text of 1 characters",
        ),
    ],
)
def test_a_bad_triple_of_another_layout_is_named(file, line, why):
    with pytest.raises(DataError) as caught:
        convert("duie", file, orjson.dumps(line))
    assert why in caught.value.message


def test_empty_slots_are_no_slots_and_triples_without_an_end_are_counted(file, capsys):
    def triple(subject, value):
        return {"subject": subject, "predicate": "上映时间", "object": value}

    lines = [
        triple("雾灯", {"@value": "1921年", "inArea": ""}),
        triple("雾灯", {"@value": ""}),
        triple(" ", {"@value": "1921年"}),
    ]
    raw = orjson.dumps({"text": "《雾灯》1921年上映", "spo_list": lines})
    for slots in (True, False):
        (record,) = convert("duie", file, raw, slots=slots)
        assert record["spo_list"] == [triple("雾灯", "1921年")]
        assert (
            capsys.readouterr().err == "note: 2 triples without a subject or an object: left out\n"
        )


PARAGRAPH = "灯塔1921年建成，1930年重修。"
ORIGINAL = [
    {
        "context_id": "A",
        "context_text": PARAGRAPH,
        "qas": [
            {"query_id": "A_0", "query_text": "何时建成？", "answers": ["1921年", "1921年"]},
            {"query_text": "何时重修？"},
        ],
    }
]


def test_the_list_of_cmrc_2018(file):
    assert convert("cmrc2018", file, orjson.dumps(ORIGINAL)) == [
        {"id": "A_0", "question": "何时建成？", "context": PARAGRAPH, "answers": ["1921年"]},
        {"question": "何时重修？", "context": PARAGRAPH},
    ]
    bad = orjson.dumps([{**ORIGINAL[0], "qas": [{"query": "何时？"}]}])
    with pytest.raises(DataError, match=r'raw: \[0\].qas\[0\]: missing field "query_text"'):
        convert("cmrc2018", file, bad)


def squad(**question):
    """A file of SQuAD with one question, and what the recipe makes of it."""
    question = {"question": "何时建成？", **question}
    paragraphs = [{"context": PARAGRAPH, "qas": [question]}]
    return orjson.dumps({"data": [{"paragraphs": paragraphs}]})


HERE = [{"text": "1921年", "answer_start": 2}]


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ({"is_impossible": "false", "answers": HERE}, ["1921年"]),
        ({"is_impossible": "False", "answers": HERE}, ["1921年"]),
        ({"is_impossible": 0, "answers": HERE}, ["1921年"]),
        ({"is_impossible": "true", "answers": HERE}, []),
        ({"is_impossible": True, "answers": []}, []),
        ({"answers": [{"text": "", "answer_start": -1}]}, []),
        ({"answers": [{"text": "", "answer_start": 0}, *HERE]}, ["1921年"]),
    ],
)
def test_no_answer_in_all_its_forms(file, question, answers):
    (record,) = convert("cmrc2018", file, squad(**question))
    assert record["answers"] == answers


def test_questions_answered_by_yes_or_no_are_left_out_and_counted(file, capsys):
    raw = squad(is_impossible="false", answers=[{"text": "YES", "answer_start": -1}])
    assert convert("cmrc2018", file, raw) == []
    assert capsys.readouterr().err == "note: 1 questions answered by YES or NO: left out\n"


@pytest.mark.parametrize("flag", ["maybe", None, 2, [], {}])
def test_a_flag_that_is_none_is_named(file, flag):
    with pytest.raises(DataError, match=r'qas\[0\]: field "is_impossible": expected true or false'):
        convert("cmrc2018", file, squad(is_impossible=flag, answers=HERE))


MATH = """{
  "id":"1",
  "original_text":"一天走5千米，3天走多少？",
  "segmented_text":"一天 走 5 千米 ， 3 天 走 多少 ？",
  "equation":"x=3*5千米",
  "ans":"15"
}
{
  "id":"2",
  "original_text":"3个5是多少？",
  "segmented_text":"3 个 5 是 多少 ？",
  "equation":"x=3*5",
  "ans":"15"
}
"""


@pytest.mark.parametrize("comma", ["", ","])
def test_math23k_as_published(file, capsys, comma):
    records = convert("math23k", file, MATH.replace("}\n{", f"}}{comma}\n{{"))
    assert records == [
        {
            "id": "1",
            "text": "一天走5千米，3天走多少？",
            "equation": "x=3*5",
            "answer": "15",
            "unit": "千米",
        },
        {"id": "2", "text": "3个5是多少？", "equation": "x=3*5", "answer": "15"},
    ]
    assert capsys.readouterr().err == (
        "note: 1 equations or answers with a unit: it goes to the field unit\n"
    )
    with pytest.raises(DataError, match="raw:8: not valid JSON: the object has no end"):
        convert("math23k", file, MATH.rstrip().removesuffix("}"))


@pytest.mark.parametrize(
    ("written", "equation", "unit"),
    [
        ("x=(3+5)(千米)", "x=(3+5)", "千米"),
        ("x=50%", "x=50%", ""),
        ("x=2(1/3)", "x=2(1/3)", ""),
        ("x=3*5平方米", "x=3*5", "平方米"),
        ("x=3*5元/千克", "x=3*5", "元/千克"),
        ("x=20℃", "x=20", "℃"),
    ],
)
def test_units_behind_equations(file, written, equation, unit):
    line = {"original_text": "甲", "equation": written, "ans": "1"}
    (record,) = convert("math23k", file, orjson.dumps(line))
    assert (record["equation"], record.get("unit", "")) == (equation, unit)


GBK = "<question id=1>\t灯塔多高？\n".encode("gb18030")


@pytest.mark.parametrize("recipe", ["nlpcc_kbqa", "nlpcc_kb", "bio", "duie", "webqa", "cmrc2018"])
def test_files_of_another_encoding_are_refused(file, recipe):
    with pytest.raises(DataError, match="not UTF-8") as caught:
        convert(recipe, file, GBK)
    assert "iconv" in caught.value.hint


RAW = {
    "bio": TAGGED,
    "nlpcc_kb": "甲 ||| 乙 ||| 丙\n",
    "nlpcc_kbqa": "<question id=1>\t谁？\n",
    "cmrc2018": orjson.dumps(ORIGINAL).decode(),
    "doccano": '{"text": "甲", "label": [[0, 1, "a"]]}',
    "label_studio": '[{"data": {"text": "甲"}, "annotations": []}]',
    "cmeee": '[{"text": "甲", "entities": [{"start_idx": 0, "end_idx": 0, "type": "a"}]}]',
    "duie": '{"text": "甲", "triple_list": []}',
    "ape210k": '{"original_text": "甲", "equation": "x=1", "ans": "1"}',
}


@pytest.mark.parametrize("given", ["duie", "cluener", "cmeee", "bio", "ape210k", "nlpcc_kbqa"])
@pytest.mark.parametrize("recipe", sorted(RAW))
def test_a_wrong_recipe_names_the_right_one(file, recipe, given):
    if given == recipe:
        return
    with pytest.raises(DataError) as caught:
        convert(given, file, RAW[recipe])
    assert caught.value.hint.endswith(f"nlpkit data convert {recipe}")


EMOJI = '{"text": "🙂许蓁写了雾灯", "label": [[%d, %d, "作品"]]}\n'


def test_offsets_of_doccano_may_count_emoji_twice(file, capsys):
    """A project that does not count grapheme clusters counts as JavaScript does."""
    entities = [{"start": 5, "end": 7, "label": "作品"}]
    for span, options in (((6, 8), {"offsets": "utf16"}), ((5, 7), {})):
        (record,) = convert("doccano", file, EMOJI % span, **options)
        assert record["entities"] == entities
        told = capsys.readouterr().err
        assert ("say --set offsets=utf16" in told) == (not options)


def test_other_offsets_than_doccano_has_are_refused():
    with pytest.raises(SettingsError, match='expected characters or utf16, got "bytes"'):
        list(data_recipes.load("doccano").convert(["-"], offsets="bytes"))
