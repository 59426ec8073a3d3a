"""Knowledge bases: keys and triples, what is wrong with a file, and the benchmark's score by
hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.encoders import load_tokenizer
from nlpkit.errors import DataError, RecordError, SettingsError
from nlpkit.tasks.kgclue.answers import (
    Prediction,
    common_length,
    parse_prediction,
    read_gold,
    score_answers,
)
from nlpkit.tasks.kgclue.knowledge_base import KnowledgeBase, Name, Triple, file_hash, key_tokens

FACTS = (
    "云泽（湖泊）\t面积\t480平方千米\n云泽\t省份\t岚州\n云泽\t省份\t青州\n云泽\t省份\t岚州\n"
    "ABC\t别名\t甲\nabc\t别名\t乙\n"
)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("tiny")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "kb.tsv"
    path.write_text(FACTS, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("云泽（湖泊）", ("云泽", "湖泊")),
        ("云泽", ("云泽", "")),
        ("甲（乙）（丙）", ("甲（乙）", "丙")),
        ("我（们）的云（小说）", ("我（们）的云", "小说")),
        ("甲（乙（丙））", ("甲", "乙（丙）")),
        ("甲）（乙）", ("甲）", "乙")),
        ("（甲）", ("（甲）", "")),
        ("甲（）", ("甲（）", "")),
        ("甲（乙", ("甲（乙", "")),
    ],
)
def test_a_name_and_its_meaning(subject, name):
    assert Name.of(subject) == name
    assert Name.of(subject).text == subject


def test_several_brackets_at_the_end_give_a_second_name():
    assert Name.readings("甲（乙）（丙）") == [("甲（乙）", "丙"), ("甲", "乙）（丙")]
    assert Name.readings("我（们）的云（小说）") == [("我（们）的云", "小说")]
    assert Name.readings("甲") == [("甲", "")]
    for subject in ("甲（乙）（丙）", "（甲）（乙）（丙）", "甲（）（乙）"):
        assert {name.text for name in Name.readings(subject)} == {subject}


def test_both_names_lead_to_the_triples(tmp_path, tokenizer):
    file = tmp_path / "kb.tsv"
    file.write_text("甲（乙）（丙）\t丁\t戊\n", encoding="utf-8")
    kb = KnowledgeBase.open(file, tokenizer)
    expected = [Triple("甲（乙）（丙）", "丁", "戊")]
    for name in Name.readings("甲（乙）（丙）"):
        assert kb.find(name, "丁") == expected
        node = kb.trie.find(key_tokens(name, "丁", tokenizer))
        assert kb.triples(kb.trie.key_range(node)[0]) == expected


@pytest.mark.parametrize("compiled", [False, True])
def test_triples_by_their_keys(file, tokenizer, compiled, tmp_path):
    if compiled:
        KnowledgeBase.open(file, tokenizer).trie.save(tmp_path / "kb.trie")
        file = tmp_path / "kb.trie"
    kb = KnowledgeBase.open(file, tokenizer, file_hash(file))
    assert len(kb.trie) == 3
    assert kb.find(Name("云泽", "湖泊"), "面积") == [Triple("云泽（湖泊）", "面积", "480平方千米")]
    assert [triple.object for triple in kb.find(Name("云泽", ""), "省份")] == ["岚州", "青州"]
    assert kb.find(Name("云泽", ""), "面积") == []
    # the same tokens, but not the same strings
    assert kb.find(Name("abc", ""), "别名") == [Triple("abc", "别名", "乙")]
    assert kb.triples(
        kb.trie.key_range(kb.trie.find(key_tokens(Name("ABC", ""), "别名", tokenizer)))[0]
    ) == [
        Triple("ABC", "别名", "甲"),
        Triple("abc", "别名", "乙"),
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "expected triples, got none"),
        ("甲\t乙\t丙\n\n甲\t乙\n", "kb.tsv:3: expected 3 columns between tabs, got 2"),
        ("甲\t \t丙\n", "kb.tsv:1: expected subject, predicate and object"),
        (
            "甲\t乙\t丙\n" + "云" * 10**6 + "\t乙\t丙\n",
            "kb.tsv:2: .* too long: expected at most 4094",
        ),
        ("甲\t乙\t丙\t丁\n", "kb.tsv:1: expected 3 columns between tabs, got 4"),
    ],
)
def test_a_wrong_knowledge_base_is_an_error_of_data(tmp_path, tokenizer, content, why):
    path = tmp_path / "kb.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=why):
        KnowledgeBase.open(path, tokenizer)


def test_a_changed_or_missing_knowledge_base_is_refused(file, tokenizer):
    known = file_hash(file)
    file.write_text(FACTS + "甲\t乙\t丙\n", encoding="utf-8")
    with pytest.raises(
        SettingsError, match=f"expected sha256 {known}, got {file_hash(file)}"
    ) as caught:
        KnowledgeBase.open(file, tokenizer, known)
    assert "--kb" in caught.value.hint
    with pytest.raises(SettingsError, match="gone.tsv: cannot be read"):
        KnowledgeBase.open(file.parent / "gone.tsv", tokenizer, known)


def test_a_trie_of_something_else_is_refused(tmp_path, tokenizer):
    from nlpkit.decoding.trie.token_trie import TokenTrie
    from nlpkit.text.backend import vocabulary_hash

    TokenTrie.from_sequences([(5, 6)], 10_000, vocabulary_hash(tokenizer.backend)).save(
        tmp_path / "names.trie"
    )
    with pytest.raises(SettingsError, match="holds no triples"):
        KnowledgeBase.open(tmp_path / "names.trie", tokenizer)


def test_the_score_by_hand():
    gold = read_gold({"answer": "云泽（湖泊） ||| 面积 ||| 480平方千米"})
    near = Prediction("云泽", "", "面积", ["48千米", "480平方千米"])
    none = Prediction("", "", "", [])
    metrics = score_answers([(gold, gold), (gold, near), (gold, none)])
    assert metrics["subject_em"] == round(1 / 3, 6)
    assert metrics["predicate_em"] == round(2 / 3, 6)
    assert metrics["subject_f1"] == round((1 + 2 * 2 / (6 + 2)) / 3, 6)
    object_f1 = (1 + 2 * 4 / (7 + 4)) / 3
    assert metrics["object_f1"] == round(object_f1, 6)
    assert metrics["score"] == pytest.approx((1 / 3 + object_f1) / 2, abs=1e-6)
    assert metrics["triple_em"] == round(1 / 3, 6)


@given(st.text("甲乙丙丁", max_size=12), st.text("甲乙丙丁", max_size=12))
def test_common_length_is_that_of_the_textbook(one, other):
    row = [0] * (len(other) + 1)
    for a in one:
        last, row = row, [0]
        for place, b in enumerate(other):
            row.append(last[place] + 1 if a == b else max(last[place + 1], row[-1]))
    assert common_length(one, other) == row[-1]


@pytest.mark.parametrize("answer", ["甲 ||| 乙", "甲", "甲 ||| ||| 丙", 3])
def test_wrong_gold_names_its_field(answer):
    with pytest.raises(RecordError, match='"answer": expected "subject'):
        read_gold({"answer": answer})


@pytest.mark.parametrize(
    "value", [{}, {"subject": "", "meaning": "", "predicate": "", "objects": "甲"}]
)
def test_a_wrong_prediction_names_its_field(value):
    with pytest.raises(RecordError, match="field"):
        parse_prediction(value)
