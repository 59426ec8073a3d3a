"""Characters, tokens and back: offsets survive normalisation, windows cover the text."""

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit import encoders
from nlpkit.encoders import load_tokenizer
from nlpkit.text.replacement import replace_all, replace_spans
from nlpkit.text.tokenizer import Tokenizer, occurrences, padded_length
from nlpkit.text.vocabulary import build, character_tokenizer, common_characters
from nlpkit.text.words import BUCKETS, TAGS, word_features, word_starts

ODD = st.text(
    st.sampled_from("中文Ａ１ａZ 　\t\n…，。①㎏Ⅳﬁé𠮷😀👨‍👩‍👧\u0301İß"), max_size=30
) | st.text(max_size=30)


@pytest.fixture(scope="module")
def characters():
    return load_tokenizer("tiny")


@pytest.fixture(scope="module")
def wordpiece():
    """A BERT tokenizer with pieces of words, as checkpoints have it."""
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "中",
        "文",
        "a",
        "##b",
        "##c",
        "ab",
        "1",
        "##2",
        "，",
        ".",
    ]
    backend = tokenizers.BertWordPieceTokenizer({token: i for i, token in enumerate(vocabulary)})
    return Tokenizer(backend._tokenizer)


@settings(max_examples=300)
@given(text=ODD, data=st.data())
def test_every_span_of_characters_is_a_span_of_tokens_and_back(characters, text, data):
    encoding = characters.encode(text)
    if not text:
        assert len(encoding) == 2
        return
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    span = encoding.token_span((start, end))
    if span is not None:  # None where normalisation merged or dropped a character at an edge
        assert encoding.char_span(span) == (start, end)
    simple = all("\u4e00" <= c <= "\u9fff" or c.isascii() or c in "𠮷😀　１Ａ" for c in text)
    assert span is not None or not simple


@settings(max_examples=200)
@given(text=st.text(st.sampled_from("中文ab12，.AB é\u3000😀"), max_size=20))
def test_token_spans_of_a_wordpiece_tokenizer_give_their_own_characters(wordpiece, text):
    encoding = wordpiece.encode(text)
    for first in range(1, len(encoding) - 1):
        start, end = encoding.char_span((first, first + 1))
        assert 0 <= start < end <= len(text)
        span = encoding.token_span((start, end))
        assert span is None or encoding.char_span(span) == (start, end)
    assert encoding.token_span((0, len(text) + 5)) is None


def test_a_span_that_ends_inside_a_piece_is_none(wordpiece):
    encoding = wordpiece.encode("abc 中")
    assert encoding.token_span((0, 3)) is not None
    assert encoding.token_span((0, 1)) is None
    assert encoding.token_span((4, 5)) is not None
    assert encoding.token_span((3, 5)) is None


@settings(max_examples=100)
@given(text=ODD.filter(lambda text: len(text) > 10), size=st.integers(6, 16))
def test_windows_cover_the_text_and_keep_their_offsets(characters, text, size):
    encoding = characters.encode(text)
    windows = encoding.windows(size)
    assert max(map(len, windows)) <= max(size, 3)
    covered = set()
    for window in windows:
        spans = list(zip(window.starts_T[1:-1], window.ends_T[1:-1], strict=True))
        covered |= set(spans)
        assert window.token_ids_T[0] == characters.cls_id
        assert window.token_ids_T[-1] == characters.sep_id
    assert covered == set(zip(encoding.starts_T[1:-1], encoding.ends_T[1:-1], strict=True))


def test_a_window_finds_only_what_lies_in_it(characters):
    text = "甲乙丙丁" * 20
    first, *_, last = characters.encode(text).windows(20)
    assert first.find("甲乙丙丁")
    assert all(last.char_span(span)[0] >= last.starts_T[1] for span in last.find("甲乙"))
    assert first.is_part
    assert not characters.encode(text).is_part


def test_occurrences_overlap_and_the_empty_string_has_none():
    assert occurrences("aaa", "aa") == [(0, 2), (1, 3)]
    assert occurrences("aaa", "") == occurrences("", "a") == []


@settings(max_examples=200)
@given(ODD)
def test_words_cover_every_character_once(text):
    word_ids, tag_ids = word_features(text)
    assert len(word_ids) == len(tag_ids) == len(text)
    if text:
        assert 1 <= word_ids.min() <= word_ids.max() <= BUCKETS
        assert 1 <= tag_ids.min() <= tag_ids.max() < TAGS
        assert word_starts(tag_ids)[0]


def test_a_word_is_one_word():
    word_ids, tag_ids = word_features("北京大学，a")
    assert len(set(word_ids[:4])) == 1
    assert word_starts(tag_ids).tolist() == [True, False, False, False, True, True]


def test_a_vocabulary_of_frequencies():
    common = common_characters()
    vocabulary = build(
        ["㐂㐂㐂㐅㐅Ａ中", "㐆\ue000\ue000\ue000\ue000"], size=5 + 69 + len(common) + 2
    )
    assert vocabulary[-2:] == ["㐂", "㐅"]  # by frequency; characters for private use are none
    tokenizer = Tokenizer(character_tokenizer(vocabulary))
    unknown = tokenizer.backend.token_to_id("[UNK]")
    ids = list(tokenizer.encode("㐂Ａ㐆").token_ids_T[1:-1])
    assert ids == [vocabulary.index("㐂"), vocabulary.index("a"), unknown]


def test_the_vocabulary_that_ships_knows_the_common_characters_of_both_scripts():
    backend = tokenizers.Tokenizer.from_file(str(encoders.TOKENIZER))
    vocabulary = backend.get_vocab()
    assert len(vocabulary) <= 10_000
    assert len(common_characters()) > 6000
    assert not set(common_characters()) - vocabulary.keys()
    assert backend.encode("２０２４年ABC", add_special_tokens=False).tokens == list("2024年abc")


@given(
    st.lists(
        st.tuples(st.text("abc", max_size=3), st.text("ab", min_size=1, max_size=3)), max_size=4
    )
)
def test_replaced_spans_lie_where_their_strings_are(parts):
    text, spans, strings = "", [], []
    for between, inside in parts:
        text += between
        spans.append((len(text), len(text) + len(inside)))
        strings.append(inside.upper() * 2)
        text += inside
    new, places = replace_spans(text, spans, strings)
    assert [new[start:end] for start, end in places] == strings


def test_longer_strings_are_replaced_first():
    assert replace_all("ab a b", {"a": "x", "ab": "y"}) == "y x b"


def test_encodings_are_padded_to_a_step(characters):
    batch = characters.collate([characters.encode(text) for text in ("中", "中文字")])
    assert batch.token_ids_BT.shape == (2, 16)
    for longest, width in ((1, 16), (17, 24), (128, 128), (129, 144), (200, 208)):
        assert padded_length(longest) == width
    assert batch.mask_BT.sum(1).tolist() == [3, 5]
    assert batch.content_BT.sum(1).tolist() == [1, 3]
    assert np.all(batch.token_ids_BT[~batch.mask_BT].numpy() == characters.pad_id)


def test_unknown_characters_are_told(characters, wordpiece):
    text = "把𓀀与😀，𓀀放在Ａ处"
    assert characters.unknown(text) == ["𓀀", "😀"]
    assert characters.unknown_spans(text) == [(1, 2), (3, 4), (5, 6)]
    assert characters.token_ids("𓀀") == characters.token_ids("😀") == (characters.unk_id,)
    assert characters.unknown("把山放在Ａ处 ") == characters.unknown("") == []
    assert wordpiece.unknown("中国 abx，") == ["国", "abx"]


@pytest.mark.parametrize("tokenizer", ["characters", "wordpiece"])
@pytest.mark.parametrize("letter", ["e\u0301", "カ\u3099", "\u1100\u1161", "a\u0302\u0301"])
def test_a_letter_written_as_several_characters_is_a_span(tokenizer, letter, request):
    text = f"看{letter}吧"
    encoding = request.getfixturevalue(tokenizer).encode(text)
    span = encoding.token_span((1, 1 + len(letter)))
    assert span
    assert encoding.char_span(span) == (1, 1 + len(letter))
    assert encoding.find("吧") == [encoding.token_span((len(text) - 1, len(text)))]
