"""The tokenizer of a checkpoint: that of `transformers`, or an error that says why not."""

from __future__ import annotations

import json
from typing import Any

import pytest
import transformers
from checkpoints import (
    VOCABULARY,
    Save,
    saver,
)

from nlpkit.encoders.checkpoint.load import inspect, load_tokenizer
from nlpkit.errors import SettingsError

save = pytest.fixture(saver)


def test_vocab_txt_makes_the_tokenizer_of_transformers(save: Save) -> None:
    folder = save()
    tokenizer = load_tokenizer(folder)
    own = transformers.BertTokenizerFast.from_pretrained(folder)
    for text in ["中国人 in 北京", "AB abc\tÉ 1", "未知字 [MASK] ab", ""]:
        assert tokenizer.encode(text).ids == own(text)["input_ids"]
        assert tokenizer.encode("a", "b" + text).type_ids == own("a", "b" + text)["token_type_ids"]


def test_offsets_are_those_of_the_text_as_given(save: Save) -> None:
    text = "  中国\u3000ABC \x00É京"
    encoded = load_tokenizer(save()).encode(text, add_special_tokens=False)
    assert [text[start:end] for start, end in encoded.offsets] == ["中", "国", "AB", "C", "É", "京"]


def test_case_is_kept_where_the_settings_say_so(save: Save) -> None:
    folder = save()
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert load_tokenizer(folder).encode("a A", add_special_tokens=False).tokens == ["a", "[UNK]"]


def test_tokenizer_json_without_truncation_and_padding(save: Save) -> None:
    folder = save()
    tokenizer = load_tokenizer(folder)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    plain = inspect(folder)
    assert len(load_tokenizer(folder).encode("中国人北京大学").ids) == 9
    assert len(load_tokenizer(folder).encode("中").ids) == 3
    assert plain.tokenizer == "tokenizer.json (WordPiece)"
    (folder / "tokenizer.json").unlink()
    assert inspect(folder).vocabulary_sha256 == plain.vocabulary_sha256


def test_more_tokens_than_embeddings(save: Save) -> None:
    folder = save()
    with (folder / "vocab.txt").open("a") as file:
        file.writelines(f"token{i}\n" for i in range(100))
    message = f"more tokens than embeddings: expected at most 60, got {len(VOCABULARY) + 100}"
    with pytest.raises(SettingsError, match=message):
        load_tokenizer(folder)
    report = inspect(folder)
    assert report.tokenizer is None
    assert message in report.problems[0]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("vocab.txt", b"[PAD]\n[CLS]\na\n", r"lacks \[UNK\], \[SEP\]"),
        ("vocab.txt", b"[PAD]\n\xff\xfe\n", "2: not UTF-8"),
        ("tokenizer.json", b"{}", 'missing field "model"'),
        ("tokenizer.json", b"{", "not valid JSON"),
    ],
)
def test_a_bad_tokenizer_is_named(save: Save, file: str, content: bytes, message: str) -> None:
    folder = save()
    (folder / file).write_bytes(content)
    with pytest.raises(SettingsError, match=f"{file}:.*{message}"):
        load_tokenizer(folder)


def test_a_token_that_comes_twice_is_told_with_its_lines(save: Save) -> None:
    folder = save()
    (folder / "vocab.txt").write_bytes(b"[PAD]\na\nb\na\n")
    with pytest.raises(SettingsError, match='vocab.txt:4: "a" is already on line 2'):
        load_tokenizer(folder)


def test_no_tokenizer_is_no_obstacle_to_the_report(save: Save) -> None:
    folder = save()
    (folder / "vocab.txt").unlink()
    with pytest.raises(SettingsError, match="expected tokenizer.json or vocab.txt"):
        load_tokenizer(folder)
    assert (inspect(folder).tokenizer, inspect(folder).problems) == (None, [])


def test_added_tokens_are_tokens(save: Save) -> None:
    folder, first = save(), len(VOCABULARY)
    added = {"<e2>": first + 1, "<e1>": first}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("中<e1>国<e2>", add_special_tokens=False).tokens == [
        *("中", "<e1>", "国", "<e2>")
    ]
    assert (tokenizer.token_to_id("<e1>"), tokenizer.token_to_id("<e2>")) == (first, first + 1)
    own = transformers.BertTokenizer.from_pretrained(folder)
    assert tokenizer.encode("中<e1>国<e2>").ids == own("中<e1>国<e2>")["input_ids"]
    assert inspect(folder).vocabulary_size == first + 2


def test_added_tokens_of_newer_checkpoints(save: Save) -> None:
    folder, first = save(), len(VOCABULARY)
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    decoder = {str(first): {"content": "[E]", "special": True, **flags}}
    decoder["0"] = {"content": "[PAD]", "special": True, **flags}
    settings = {"added_tokens_decoder": decoder}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert load_tokenizer(folder).encode("中[E]a").ids[1:-1] == [5, first, 15]


@pytest.mark.parametrize("token_id", [3, 99, "5"])
def test_an_added_token_that_cannot_have_its_id_is_refused(save: Save, token_id: Any) -> None:
    folder = save()
    (folder / "added_tokens.json").write_text(json.dumps({"<e1>": token_id}))
    with pytest.raises(SettingsError, match="<e1>.*: expected"):
        load_tokenizer(folder)
    assert "<e1>" in inspect(folder).problems[0]


def test_an_added_token_that_tokenizer_json_lacks_is_refused(save: Save) -> None:
    folder = save()
    load_tokenizer(folder).save(str(folder / "tokenizer.json"))
    (folder / "added_tokens.json").write_text(json.dumps({"<e1>": len(VOCABULARY)}))
    with pytest.raises(SettingsError, match='"<e1>": expected the id .*, got None'):
        load_tokenizer(folder)


@pytest.mark.parametrize("tokenizer_class", ["RoFormerTokenizer", None])
def test_a_vocabulary_of_words_is_refused(save: Save, tokenizer_class: str | None) -> None:
    folder = save("RoFormerForMaskedLM")
    words = ["中国", "北京", "大学"] if tokenizer_class is None else ["中国"]
    (folder / "vocab.txt").write_text("\n".join([*VOCABULARY, *words]) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": tokenizer_class}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(SettingsError, match="a vocabulary of Chinese words.*中国"):
        load_tokenizer(folder)
    assert "a vocabulary of Chinese words" in inspect(folder).problems[0]


def test_a_vocabulary_with_windows_line_ends_and_a_byte_order_mark(save: Save) -> None:
    folder = save()
    plain = inspect(folder).vocabulary_sha256
    text = "\r\n".join(VOCABULARY) + "\r\n"
    (folder / "vocab.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert inspect(folder).vocabulary_sha256 == plain
