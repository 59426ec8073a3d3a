"""What is refused as a tokenizer: without special tokens, two tokens of one id."""

import json

import pytest

from nlpkit.errors import SettingsError
from nlpkit.text.backend import read_backend
from nlpkit.text.tokenizer import Tokenizer
from nlpkit.text.vocabulary import character_tokenizer


def a_tokenizer(tmp_path, change):
    """tokenizer.json of five tokens, its JSON changed by `change`."""
    backend = character_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "山"])
    value = json.loads(backend.to_str())
    change(value)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("token", ["[CLS]", "[SEP]", "[PAD]", "[UNK]"])
def test_a_vocabulary_without_a_special_token_is_refused(tmp_path, token):
    with pytest.raises(SettingsError, match=rf"tokenizer.json: lacks \{token}"):
        read_backend(a_tokenizer(tmp_path, lambda value: value["model"]["vocab"].pop(token)))
    backend = character_tokenizer([t for t in ("[CLS]", "[SEP]", "[PAD]", "[UNK]") if t != token])
    with pytest.raises(SettingsError, match=rf"vocabulary lacks \{token}"):
        Tokenizer(backend)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"unk_token": "[PAD]"}, r"expected \[UNK\], got \[PAD\]"),
        ({"unk_token": "nothing"}, r"expected \[UNK\], got nothing"),
        ({"type": "BPE", "merges": [], "unk_token": None}, r"does not name \[UNK\]"),
        ({"type": "Nothing"}, "not a tokenizer"),
    ],
)
def test_a_tokenizer_whose_unknown_characters_vanish_is_refused(tmp_path, model, message):
    with pytest.raises(SettingsError, match=message):
        read_backend(a_tokenizer(tmp_path, lambda value: value["model"].update(model)))


def test_two_tokens_with_one_id_are_refused(tmp_path):
    path = a_tokenizer(tmp_path, lambda value: value["model"]["vocab"].update(水=4))
    with pytest.raises(SettingsError, match="share the id 4"):
        read_backend(path)


def test_a_stored_truncation_and_padding_are_switched_off(tmp_path):
    backend = character_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "山"])
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(read_backend(tmp_path / "tokenizer.json"))
    assert tokenizer.token_ids("山山山") == (4, 4, 4)
