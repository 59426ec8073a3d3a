"""Texts to tokens on disk, blocks of them in an order, blocks to masked words and continued
prefixes."""

import gzip
import lzma
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit import encoders
from nlpkit.errors import DataError, SettingsError
from nlpkit.pretraining import corpus
from nlpkit.pretraining.blocks import Blocks
from nlpkit.pretraining.corpus import encode_text, load_corpus, parse_source, token_type, word_bit
from nlpkit.pretraining.objectives import (
    DETECTION_WEIGHT,
    Pretrainer,
    Symbols,
    draw,
    masked_batch,
    prefix_batch,
    replaced_batch,
)
from nlpkit.text.words import word_lengths

BACKEND = tokenizers.Tokenizer.from_file(str(encoders.TOKENIZER))
SYMBOLS = Symbols(2, 3, 4, 5, BACKEND.get_vocab_size())
LINES = [f"第{number}段：张三在北京大学学习物理，Ｂｏｂ 去了𠮷林😀。" for number in range(6000)]


def randoms(count, seed=0):
    return [np.random.default_rng((seed, number)) for number in range(count)]


def test_a_text_is_its_tokens_with_the_words_marked():
    text = "他在北京大学读书，Ａ4"
    tokens = encode_text(text, BACKEND, token_type(BACKEND))
    bit = word_bit(tokens)
    assert (tokens & (bit - 1)).tolist() == BACKEND.encode(text, add_special_tokens=False).ids
    begins = np.flatnonzero(tokens & bit)
    assert begins.tolist() == [0, *np.cumsum(word_lengths(text))[:-1]]


def test_a_text_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    text = tmp_path / "a.txt"
    text.write_text("\n".join(LINES[:10]), encoding="utf-8")
    monkeypatch.setattr(
        "nlpkit.pretraining.corpus._encode_files", lambda *_: text.write_text("又一行")
    )
    with pytest.raises(DataError, match="a.txt: changed while it was read"):
        load_corpus(tmp_path / "corpus", [str(text)], BACKEND)
    assert not (tmp_path / "corpus" / "corpus.json").exists()


@pytest.mark.parametrize("small", [0, corpus.SMALL])  # in several processes, in this one
def test_a_corpus_holds_every_line_once_and_holds_some_out(tmp_path, monkeypatch, small):
    monkeypatch.setattr(corpus, "SMALL", small)
    plain, xz, gz = tmp_path / "a.txt", tmp_path / "b.txt.xz", tmp_path / "c.txt.gz"
    plain.write_text("\ufeff" + "\r\n".join(LINES[:2500]) + "\n\n", encoding="utf-8")
    xz.write_bytes(lzma.compress("\n".join(LINES[2500:5000]).encode()))
    gz.write_bytes(gzip.compress("\n".join(LINES[5000:]).encode()))
    texts = [str(plain), f"{xz}:0.5", str(gz)]
    made = load_corpus(tmp_path / "corpus", texts, BACKEND)
    assert [source.weight for source in made.sources] == [1.0, 0.5, 1.0]
    parts = [source.tokens for source in made.sources] + [made.held_out]
    found = [line for part in parts for line in lines_of(part)]
    assert Counter(found) == Counter(
        tuple(BACKEND.encode(line, add_special_tokens=False).ids) for line in LINES
    )
    assert 0 < len(lines_of(made.held_out)) < 20
    again = load_corpus(tmp_path / "corpus", texts, BACKEND, encode=False)
    assert np.array_equal(again.sources[1].tokens, made.sources[1].tokens)
    with pytest.raises(SettingsError, match="tokens of other texts"):
        load_corpus(tmp_path / "corpus", texts[:2], BACKEND)


def lines_of(tokens):
    ids = tokens & (word_bit(tokens) - 1)
    ends = np.flatnonzero(ids == SYMBOLS.sep_id)
    return [tuple(part[part != SYMBOLS.sep_id].tolist()) for part in np.split(ids, ends + 1)[:-1]]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"good\nbad \xff\n", DataError, r"t.txt:2: not UTF-8"),
        (None, DataError, "t.txt: cannot be read"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, content, error, message):
    if content is not None:
        (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(error, match=message):
        load_corpus(tmp_path / "corpus", [str(tmp_path / "t.txt")], BACKEND)
    assert not (tmp_path / "corpus" / "corpus.json").exists()


def test_a_weight_is_what_stands_after_the_colon(tmp_path):
    assert parse_source("a.txt:0.25") == ("a.txt", 0.25)
    assert parse_source("a.txt") == ("a.txt", 1.0)
    odd = tmp_path / "a.txt:3"
    odd.write_text("x")
    assert parse_source(str(odd)) == (str(odd), 1.0)
    with pytest.raises(SettingsError, match="above 0"):
        parse_source("a.txt:0")


@given(st.integers(0, 99), st.integers(20, 200), st.integers(1, 9))
@settings(max_examples=50)
def test_a_pass_takes_every_block_once(seed, size, length):
    blocks = Blocks([size, 3 * size], [1.0, 1.0], length, seed)
    for number in range(3):
        taken = [blocks[number * blocks.per_pass + place] for place in range(blocks.per_pass)]
        for source, tokens in enumerate((size, 3 * size)):
            starts = sorted(start for s, start in taken if s == source)
            assert all(b - a == length for a, b in zip(starts, starts[1:], strict=False))
            assert starts == [] or (starts[0] < length and starts[-1] + length <= tokens)
            assert len(starts) == max(0, tokens // length - 1)


def test_weights_are_shares_of_a_pass_and_five_fifths_are_a_whole():
    blocks = Blocks([1010, 1010], [0.2, 2.0], 10, seed=1)
    assert blocks.shares == [20, 200]
    five = [blocks[place] for place in range(5 * blocks.per_pass)]
    assert len({start for source, start in five if source == 0}) == 100
    one = Counter(start // 10 for source, start in five[: blocks.per_pass] if source == 1)
    assert sum(one.values()) == 200
    assert (
        blocks[7]
        == Blocks([1010, 1010], [0.2, 2.0], 10, seed=1)[7]
        != Blocks([1010, 1010], [0.2, 2.0], 10, 2)[7]
    )
    with pytest.raises(SettingsError, match="too little text"):
        Blocks([15], [1.0], 10, 1)


def some_blocks(count, length):
    text = encode_text("，".join(LINES[: count * length]), BACKEND, token_type(BACKEND))
    return [text[i * length : (i + 1) * length] for i in range(count)]


def test_whole_words_are_masked_and_their_tokens_asked_for():
    blocks = some_blocks(40, 126)
    batch = masked_batch(blocks, randoms(40), 0.25, SYMBOLS)
    ids = np.stack([block & (word_bit(block) - 1) for block in blocks])
    begins = np.stack([(block & word_bit(block)) > 0 for block in blocks])
    asked = np.zeros((40, 128), dtype=bool)
    asked.flat[batch.places_N.numpy()] = True
    assert not asked[:, [0, -1]].any()
    asked = asked[:, 1:-1]
    assert np.array_equal(ids[asked], batch.targets_N.numpy())
    assert np.array_equal(
        asked[:, 1:][~begins[:, 1:]], asked[:, :-1][~begins[:, 1:]]
    )  # inside a word all or nothing
    shown = batch.tokens.token_ids_BT[:, 1:-1].numpy()
    assert np.array_equal(shown[~asked], ids[~asked])
    assert 0.2 < asked.mean() < 0.3
    assert 0.75 < (shown[asked] == SYMBOLS.mask_id).mean() < 0.85
    assert 0.06 < (shown[asked] == ids[asked]).mean() < 0.14


def test_separators_are_never_masked():
    block = np.full(64, SYMBOLS.sep_id, np.uint16)
    assert len(masked_batch([block], randoms(1), 0.9, SYMBOLS).targets_N) == 0


def test_tokens_are_drawn_by_their_probabilities():
    chances_V = torch.tensor([0.0, 0.125, 0.0, 0.5, 0.375, 0.0])
    dice_N = (torch.arange(800) + 0.5) / 800
    drawn_N = draw(chances_V.log().expand(800, -1), dice_N)
    assert torch.bincount(drawn_N, minlength=6).tolist() == [0, 100, 0, 400, 300, 0]
    assert draw(torch.zeros(2, 5), torch.tensor([0.0, 1.0])).tolist() == [0, 4]


def test_replaced_tokens_are_what_the_encoder_expects_and_told_from_the_text():
    torch.manual_seed(0)
    shape = encoders.ShapeConfig(
        layers=2, hidden_size=32, heads=2, intermediate_size=48, max_length=64
    )
    model = Pretrainer(encoders.for_pretraining(None, shape)[0], detects=True).double().eval()
    blocks = some_blocks(3, 30)
    batch, masked = (
        made(blocks, randoms(3), 0.3, SYMBOLS) for made in (replaced_batch, masked_batch)
    )
    assert torch.equal(batch.tokens.token_ids_BT, masked.tokens.token_ids_BT)
    assert torch.equal(batch.targets_N, masked.targets_N)
    assert len(batch.dice_N) == len(batch.places_N) == len(set(batch.dice_N.tolist()))

    length = batch.tokens.token_ids_BT.shape[1]
    text_BT = torch.tensor(
        [[SYMBOLS.cls_id, *(b & (word_bit(b) - 1)).tolist(), SYMBOLS.sep_id] for b in blocks]
    )
    shown_BT = text_BT.clone()
    with torch.no_grad():
        logits_BTV = model.encoder.token_logits(encoders.encode(model.encoder, batch.tokens))
        for place, number in zip(batch.places_N.tolist(), batch.dice_N.tolist(), strict=True):
            row, column = divmod(place, length)
            sums = np.cumsum(logits_BTV[row, column].softmax(-1).numpy())
            shown_BT[row, column] = int((sums <= number).sum())
        score_BT = model.detector(
            encoders.encode(model.encoder, replace(batch.tokens, token_ids_BT=shown_BT))
        )[..., 0]
        replaced_BT = shown_BT != text_BT
        expected = torch.where(
            replaced_BT, (1 + (-score_BT).exp()).log(), (1 + score_BT.exp()).log()
        )
        found = model(batch)
        logits_M, replaced_M = model.detect(batch)
    assert 0.1 < replaced_BT.double().mean() < 0.5
    assert torch.equal(replaced_M, replaced_BT.flatten())
    torch.testing.assert_close(logits_M, score_BT.flatten().float())
    torch.testing.assert_close(
        found, DETECTION_WEIGHT * expected.flatten().float(), atol=1e-3, rtol=1e-5
    )


@pytest.mark.parametrize("bf16", [False, True])
def test_finding_replaced_tokens_teaches_all_but_the_head_that_drew_them(bf16):
    shape = encoders.ShapeConfig(
        layers=1, hidden_size=32, heads=2, intermediate_size=48, max_length=64
    )
    model = Pretrainer(encoders.for_pretraining(None, shape)[0], detects=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        losses = model(replaced_batch(some_blocks(3, 30), randoms(3), 0.3, SYMBOLS))
    losses.sum().backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == {f"encoder.head.{name}" for name, _ in model.encoder.head.named_parameters()}


def test_a_prefix_is_continued_without_a_look_ahead():
    """No loss of a token changes when a later token of the target does, and all of the source is
    seen."""
    torch.manual_seed(0)
    shape = encoders.ShapeConfig(
        layers=2, hidden_size=32, heads=2, intermediate_size=48, max_length=64
    )
    model = Pretrainer(encoders.for_pretraining(None, shape)[0]).double().eval()
    blocks = some_blocks(3, 30)
    batch = prefix_batch(blocks, randoms(3), SYMBOLS)
    length = batch.tokens.token_ids_BT.shape[1]
    rows, columns = batch.places_N // length, batch.places_N % length
    next_ids = batch.tokens.token_ids_BT[rows, columns + 1]
    assert torch.equal(next_ids, batch.targets_N)
    with torch.no_grad():
        before = model(batch)
        for column in (5, 17, 29):
            changed = batch.tokens.token_ids_BT.clone()
            changed[:, column] = 77
            after = model(prefix_like(batch, changed))
            is_target = batch.tokens.segment_ids_BT[rows, column] == 1
            untouched = is_target & (columns < column)
            torch.testing.assert_close(after[untouched], before[untouched], rtol=0, atol=1e-12)
            if (~is_target).any():
                assert (after[~is_target] != before[~is_target]).all()


def prefix_like(batch, token_ids_BT):
    return replace(batch, tokens=replace(batch.tokens, token_ids_BT=token_ids_BT))
