"""In prediction on a CPU a row of a batch does not depend on its neighbours, not by a bit: neither
on how many they are nor on how far they pad it, read at once or token by token."""

import random

import pytest
import torch

from nlpkit import encoders
from nlpkit.encoders.base import encode
from nlpkit.layers.cached_decoder import CachedDecoder
from nlpkit.layers.prefix_lm import collate_sources
from nlpkit.layers.steady_products import steady

STEPS = 14


@pytest.fixture(scope="module", params=["bert", "roformer"])
def small(request):
    """(encoder, tokenizer) with weights that make every difference show."""
    torch.manual_seed(0)
    shape = encoders.ShapeConfig(
        family=request.param,
        layers=2,
        hidden_size=64,
        heads=2,
        intermediate_size=128,
        max_length=300,
    )
    encoder, backend = encoders.for_pretraining(None, shape)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    steady(encoder.eval())
    return encoder, encoders.tokenizer_of(encoder, backend)


def hidden_of(encoder, tokenizer, texts):
    """hidden_TH of every text, without its padding."""
    tokens = tokenizer.collate([tokenizer.encode(text) for text in texts])
    with torch.inference_mode():
        hidden_BTH = encode(encoder, tokens)
    lengths = tokens.mask_BT.sum(1).tolist()
    return [hidden_TH[:length] for hidden_TH, length in zip(hidden_BTH, lengths, strict=True)]


def test_hidden_vectors_are_those_of_the_text_alone(small):
    texts = ["今天下雨的长度"[:2] * count for count in (1, 3, 8, 40, 56, 62, 75, 95, 101, 140)]
    alone = [hidden_of(*small, [text])[0] for text in texts]
    for first in range(len(texts) - 2):
        together = hidden_of(*small, [*texts[first:], texts[first]])
        for found, expected in zip(together, [*alone[first:], alone[first]], strict=True):
            assert torch.equal(found, expected)


def decoded(small, rows, beam_size):
    """logits (steps, beams, vocabulary) of every (source, tokens, beams), the first of one beam."""
    encoder, tokenizer = small
    sources, tokens, beams = zip(*rows, strict=True)
    with torch.inference_mode():
        decoder = CachedDecoder(encoder, collate_sources(sources, tokenizer))
        logits_BV = decoder.first()
        steps = [logits_BV[:, None].expand(-1, beam_size, -1)]
        for step in range(STEPS):
            token_BK = torch.tensor([some[step] for some in tokens])
            beam_BK = torch.tensor([some[step] for some in beams])
            steps.append(decoder.next(token_BK, beam_BK))
    return torch.stack(steps, 1)


@pytest.mark.parametrize("beam_size", [1, 3, 5])
def test_logits_of_a_cached_decoder_are_those_of_the_source_alone(small, beam_size):
    draw = random.Random(beam_size)
    rows = []
    for length in (0, 4, 13, 14, 30, 62, 110, 131, 180, 200):
        source = draw.choices(range(200, 1000), k=length)
        tokens = [draw.choices(range(200, 1000), k=beam_size) for _ in range(STEPS)]
        beams = [[0] * beam_size]
        beams += [draw.choices(range(beam_size), k=beam_size) for _ in range(STEPS - 1)]
        rows.append((source, tokens, beams))
    alone = [decoded(small, [row], beam_size)[0] for row in rows]
    for count in (2, 4, 7, 10):
        together = decoded(small, rows[:count], beam_size)
        for found, expected in zip(together, alone, strict=False):
            assert torch.equal(found, expected)
