"""The knowledge base of entity linking: look-up against brute force, reading, and what it
refuses."""

import gzip
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.errors import DataError, SettingsError
from nlpkit.tasks.entity_linking.kb import EntityBase
from nlpkit.tasks.entity_linking.kb_file import describe, file_hash, parse_entity, read_kb
from nlpkit.text.folding import casefold

LETTERS = "灯雾aAＡ ｂｂ\u200d㎏ß①"


def entity(id_, *names, data=()):
    facts = [{"predicate": p, "object": o} for p, o in data]
    return {
        "subject_id": id_,
        "subject": names[0],
        "alias": list(names),
        "type": ["Thing"],
        "data": facts,
    }


def write(path, records):
    path.write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records),
        encoding="utf-8",
    )
    return path


def build(path, records):
    file = write(path / "kb.jsonl", records)
    return EntityBase.build(read_kb(file, 60), path / "kb", file_hash(file))


@given(
    st.text(LETTERS, max_size=12),
    st.lists(st.text(LETTERS, min_size=1, max_size=4), min_size=1, max_size=6),
)
def test_all_substrings_are_found_as_by_brute_force(tmp_path_factory, text, names):
    names = [name for name in names if casefold(name).text] or ["灯"]
    kb = build(
        tmp_path_factory.mktemp("kb"), [entity(str(i), name) for i, name in enumerate(names)]
    )
    known = {casefold(name).text for name in names}
    found = {(m.start, m.end): m.alias for m in kb.matches(text)}
    # an edge may lie on characters that fold to nothing only where a match would otherwise have no
    # edge at all
    solid = [place for place in range(len(text)) if casefold(text[place]).text]
    spans = [(i, j + 1) for i in solid for j in solid if i <= j]
    assert set(found) == {span for span in spans if casefold(text[slice(*span)]).text in known}
    for (start, end), alias in found.items():
        folded = casefold(text[start:end]).text
        assert kb.entities_of(alias).tolist() == [
            i for i, name in enumerate(names) if casefold(name).text == folded
        ]


@given(st.text(max_size=10))
def test_a_folded_character_knows_where_it_came_from(text):
    folded = casefold(text)
    assert len(folded.text) == len(folded.source)
    assert folded.source == sorted(folded.source)
    assert folded.text == "".join(casefold(character).text for character in text)
    for place in set(folded.source):
        first = folded.source.index(place)
        assert folded.span(first, first + folded.source.count(place)) == (place, place + 1)


def test_folding_knows_width_case_and_spaces():
    assert casefold("Ｇａｌａｘｙ　S8").text == casefold("galaxy s8").text == "galaxys8"
    assert casefold("雾\u200d灯\n").source == [0, 2]
    assert casefold("㎏").span(0, 1) is None  # half of it
    assert unicodedata.normalize("NFKC", "㎏") == casefold("㎏").text


def test_a_text_gives_its_names_in_its_own_characters(tmp_path):
    kb = build(
        tmp_path, [entity("7", "Galaxy S8", "盖乐世"), entity("8", "盖乐世"), entity("9", "乐")]
    )
    text = "😀Ｇａｌａｘｙ　ｓ8和盖乐世"
    found = [
        (text[m.start : m.end], [kb.id(row) for row in kb.entities_of(m.alias)])
        for m in kb.matches(text)
    ]
    assert found == [("Ｇａｌａｘｙ　ｓ8", ["7"]), ("盖乐世", ["7", "8"]), ("乐", ["9"])]
    assert kb.matches("") == []
    assert kb.name(0) == "Galaxy S8"
    assert kb.row(kb.alias("盖乐世"), "8") == 1
    assert kb.row(kb.alias("乐"), "8") is None
    assert kb.alias("云泽") is None


def test_a_saved_one_opens_as_it_was(tmp_path):
    records = [entity(str(i), f"名{i}", data=[("第", str(i))]) for i in range(50)]
    made, opened = build(tmp_path, records), EntityBase.open(tmp_path / "kb")
    assert len(opened) == 50
    assert [opened.lines.of(row) for row in range(50)] == [
        [str(i), f"名{i}", f"第：{i}"] for i in range(50)
    ]
    assert opened.matches("名7名49") == made.matches("名7名49")
    assert opened.source == file_hash(tmp_path / "kb.jsonl")


def test_columns_and_2020_and_archives_are_read(tmp_path):
    columns = "7\t雾灯\t夜雾里的灯|雾中灯\t许蓁的小说\n8\t许蓁\n"
    (tmp_path / "kb.tsv").write_text(columns, encoding="utf-8")
    (tmp_path / "kb.tsv.gz").write_bytes(
        gzip.compress(b"\xef\xbb\xbf" + columns.replace("\n", "\r\n").encode())
    )
    entities = [found for _, found in read_kb(tmp_path / "kb.tsv", 60)]
    assert [vars(e) for e in entities] == [
        {
            "id": "7",
            "name": "雾灯",
            "aliases": ("雾灯", "夜雾里的灯", "雾中灯"),
            "description": "许蓁的小说",
        },
        {"id": "8", "name": "许蓁", "aliases": ("许蓁",), "description": ""},
    ]
    assert [found for _, found in read_kb(tmp_path / "kb.tsv.gz", 60)] == entities
    parsed = parse_entity(
        {"subject_id": 9, "subject": "雾灯", "type": "Work|Other", "alias": []}, 60
    )
    assert (parsed.id, parsed.aliases, parsed.description) == ("9", ("雾灯",), "Work")


def test_a_description_keeps_predicates_longer_than_objects():
    facts = [("作者", "许" * 50), ("作者", "沈砚"), ("页数", "217"), ("简介", "灯" * 90)]
    assert describe(["Thing"], facts, 400) == f"作者：{'许' * 50}；页数：217；简介：{'灯' * 64}"
    assert describe([], facts, 60) == f"作者：{'许' * 16}；页数：217；简介：{'灯' * 16}"
    assert len(describe([], facts, 20)) == 20


BAD = [
    ([entity("1", "灯", "")], 'kb.jsonl:1: entity "1": an alias is empty'),
    ([entity("1", "灯"), entity("2", "\u3000")], 'kb.jsonl:2: entity "2": an alias is empty'),
    (
        [entity("1", "灯"), entity("2", "雾"), entity("1", "雾")],
        'kb.jsonl:3: entity "1" is there already, at ',
    ),
    ([entity("", "灯")], 'kb.jsonl:1: field "subject_id": expected an id'),
    ([{"subject_id": "1"}], 'kb.jsonl:1: field "subject": expected a string, got None'),
    (
        [{"subject_id": "1", "subject": "灯", "alias": "雾"}],
        'kb.jsonl:1: field "alias": expected a list',
    ),
    (
        [{"subject_id": "1", "subject": "灯", "data": ["x"]}],
        'kb.jsonl:1: field "data": expected a list of objects',
    ),
    ([], "no entities"),
]


@pytest.mark.parametrize(("records", "why"), BAD)
def test_a_bad_entity_is_named_by_file_and_line(tmp_path, records, why):
    with pytest.raises(DataError) as caught:
        build(tmp_path, records)
    assert why in caught.value.message


def test_bad_columns_and_a_damaged_file_are_told(tmp_path):
    (tmp_path / "kb.tsv").write_text("7\t雾灯\n8\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"kb.tsv:2: expected id, name"):
        list(read_kb(tmp_path / "kb.tsv", 60))
    build(tmp_path, [entity("1", "灯")])
    (tmp_path / "kb").write_bytes((tmp_path / "kb").read_bytes()[:-3])
    with pytest.raises(SettingsError, match="damaged"):
        EntityBase.open(tmp_path / "kb")
