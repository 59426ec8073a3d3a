"""A text whose tokens are made late is the same encoding in the end."""

from dataclasses import replace

import numpy as np
import pytest

from nlpkit.encoders import load_tokenizer
from nlpkit.text.deferred import DeferredTokenizer

TEXT = "《长河》是沈从文的小说"


@pytest.fixture
def tokenizer():
    return DeferredTokenizer(load_tokenizer("tiny").backend)


def test_nothing_is_encoded_before_a_token_is_asked_for(tokenizer, monkeypatch):
    encoding = tokenizer.encode(TEXT)
    assert "token_ids_T" not in vars(encoding)
    assert encoding.text == TEXT
    assert "token_ids_T" not in vars(encoding)
    expected = load_tokenizer("tiny").encode(TEXT)
    assert np.array_equal(encoding.token_ids_T, expected.token_ids_T)
    assert encoding.token_span((1, 3)) == expected.token_span((1, 3))
    assert type(encoding) is type(expected)
    with pytest.raises(AttributeError, match="no_such"):
        _ = encoding.no_such


def test_a_copy_with_a_change(tokenizer):
    changed = replace(tokenizer.encode(TEXT), text="另一个")
    assert changed.text == "另一个"
    assert len(changed) == len(load_tokenizer("tiny").encode(TEXT))
