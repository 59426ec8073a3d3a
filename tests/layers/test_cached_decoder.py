"""The decoder of a part of the vocabulary, against that of all of it."""

import pytest
import torch
from test_prefix_lm import FAMILIES, PAIRS, TOKENIZER, V, make_encoder

from nlpkit.decoding.per_position import Free
from nlpkit.decoding.search import beam_search
from nlpkit.layers.cached_decoder import CachedDecoder
from nlpkit.layers.prefix_lm import collate_sources
from nlpkit.layers.steady_products import steady

MANY_DEAD = [
    [[10, 11, 12], [13, -1, -1], [-1, -1, -1], [14, -1, 15], [-1, -1, 16]],
    [[17, -1, -1], [18, -1, -1], [-1, -1, -1], [-1, 19, -1], [20, 21, -1]],
    [[22, -1, -1], [-1, -1, -1], [-1, -1, -1], [-1, 23, 24], [25, -1, -1]],
]
BEAMS = [
    [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]],
    [[2, 0, 0], [0, 0, 0], [0, 0, 0], [0, 2, 0], [2, 2, 0]],
    [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]],
]
ALPHABET = [40, 3, 17, 9, 21, 2, 48]
END = ALPHABET.index(2)
OTHERS = sorted(set(range(V)) - set(ALPHABET))
SOURCES = [pair.source for pair in PAIRS]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_alphabet_has_the_logits_that_the_whole_vocabulary_has_there(family):
    encoder = make_encoder(family).double()
    sources = collate_sources(SOURCES, TOKENIZER)
    own = CachedDecoder(encoder, sources, alphabet_V=torch.tensor(ALPHABET))
    whole = CachedDecoder(encoder, sources)
    torch.testing.assert_close(own.first(), whole.first()[:, ALPHABET])
    number_BK = torch.tensor([[0, 1], [2, -1], [-1, -1], [3, 4], [6, 0]])
    token_BK = torch.tensor(ALPHABET)[number_BK].masked_fill(number_BK < 0, -1)
    beam_BK = torch.zeros_like(number_BK)
    found_BKV = own.next(number_BK, beam_BK)
    assert found_BKV.dtype == torch.float64
    expected_BKV = whole.next(token_BK, beam_BK)[..., ALPHABET]
    alive_BK = number_BK >= 0
    torch.testing.assert_close(found_BKV[alive_BK], expected_BKV[alive_BK])


@pytest.mark.parametrize("beams", [1, 3])
def test_a_search_among_the_legal_finds_the_same(beams):
    encoder = make_encoder().double()
    sources = collate_sources(SOURCES, TOKENIZER)
    whole = CachedDecoder(encoder, sources)
    of_all = Free(V, 2, banned=OTHERS, min_length=2)
    expected = beam_search(whole, of_all, len(SOURCES), beams, 6, norm="renorm").lists()
    own = CachedDecoder(encoder, sources, alphabet_V=torch.tensor(ALPHABET))
    of_alphabet = Free(len(ALPHABET), END, min_length=2)
    found = beam_search(own, of_alphabet, len(SOURCES), beams, 6, norm="renorm").lists()
    assert any(len(row) == beams for row in found)
    for row, expected_row in zip(found, expected, strict=True):
        for (numbers, score), (tokens, expected_score) in zip(row, expected_row, strict=True):
            assert [ALPHABET[number] for number in numbers] == tokens
            assert score == pytest.approx(expected_score, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_living_beams_have_the_same_bits_where_dead_ones_are_left_out(family, monkeypatch):
    encoder = make_encoder(family)
    steady(encoder)
    sources = collate_sources(SOURCES, TOKENIZER)
    computed = []
    block = encoder.model.encoder.layer[0].intermediate
    block.register_forward_hook(lambda _, inputs, __: computed.append(inputs[0].shape[:2].numel()))
    found = []
    for packs in (False, True):
        monkeypatch.setattr(CachedDecoder, "packs", packs)
        decoder = CachedDecoder(encoder, sources)
        steps = [decoder.first()]
        for tokens, beams in zip(MANY_DEAD, BEAMS, strict=True):
            token_BK = torch.tensor(tokens)
            logits_BKV = decoder.next(token_BK, torch.tensor(beams))
            assert not logits_BKV.isnan().any()
            steps.append(logits_BKV[token_BK >= 0])
        found.append(steps)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    whole, packed = computed[1:4], computed[5:]
    assert whole == [12, 12, 9]
    assert packed == [7, 5, 4]


def test_nothing_is_computed_where_no_beam_is_left():
    decoder = CachedDecoder(make_encoder(), collate_sources(SOURCES, TOKENIZER))
    first_BV = decoder.first()
    nothing_BK = torch.full((5, 2), -1)
    for _ in range(2):
        logits_BKV = decoder.next(nothing_BK, torch.zeros_like(nothing_BK))
        assert logits_BKV.shape == (5, 2, V)
        assert not logits_BKV.any()
    assert decoder.first().equal(first_BV)
