"""The check of data where nothing can be learned: every line says why."""

import json

import pytest
from conftest import nlpkit, write_lines

from nlpkit.evaluation.data_check import check_data

TAGGED = [{"text": "何晴去了云岭", "label": ["B-name", "I-name", "O", "O", "B-place", "I-place"]}]
BY_OTHER_NAMES = [{"text": "何晴来了", "spans": [[0, 2, "name"]]}]
A_FLOAT = [{"text": "何晴来了", "entities": [{"start": 0, "end": 2, "label": 1.5}]}]


@pytest.mark.parametrize(
    ("records", "kind", "message"),
    [
        (TAGGED, "no gold", 'its fields are "text", "label"'),
        (BY_OTHER_NAMES, "no gold", 'its fields are "text", "spans"'),
        (A_FLOAT, "unreadable", "label"),
        ([{"sentence": "何晴来了"}], "unreadable", 'missing field "text"'),
    ],
)
def test_every_line_says_why_nothing_can_be_learned(tmp_path, records, kind, message):
    file = write_lines(tmp_path / "a.jsonl", records * 3)
    checking = check_data("ner", str(file), None, "tiny", [])
    *lines, (where, last, why) = list(checking)
    assert [place for place, _, _ in lines] == [f"{file}:{number}" for number in (1, 2, 3)]
    assert {found for _, found, _ in lines} == {kind}
    assert all(message in text for _, _, text in lines)
    assert (where, last) == (str(file), "nothing to learn")
    assert "no line has entities" in why


def test_the_command_tells_it_and_fails(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", TAGGED)
    done = nlpkit("data", "check", "ner", file, check=False)
    assert done.returncode == 3
    assert b'its fields are "text", "label"' in done.stderr
    assert json.loads(done.stdout)["findings"] == {"no gold": 1, "nothing to learn": 1}
