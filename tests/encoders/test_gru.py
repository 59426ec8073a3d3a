"""gru: no trace of padding, where its characters come from, and the settings that shape it."""

import pytest
import torch

from nlpkit.encoders import build, encode, load, settings_of
from nlpkit.encoders.gru import BiGRU, Encoder
from nlpkit.errors import SettingsError

TEXTS = ("今天下雨。", "他在云岭住了三年，写了两本书", "好")


def made(**settings):
    return load("gru", settings_of("gru")(**settings))


def test_the_backward_gru_starts_at_the_end_of_each_text():
    layer = BiGRU(6, 4, 0.0).eval()
    hidden = torch.randn(2, 5, 6)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])[..., None].float()
    both = layer(hidden * mask, mask)
    alone = layer(hidden[1:, :3], mask[1:, :3])
    torch.testing.assert_close(both[1:, :3], alone)
    assert not both[1, 3:].any()
    backwards, _ = layer.backwards(hidden[1:, :3].flip(1))
    torch.testing.assert_close(alone[0, 0, 4:], backwards[0, 2])


@pytest.mark.parametrize("layers", [1, 2])
def test_a_text_alone_has_the_states_it_has_in_a_batch(layers):
    encoder, tokenizer = made(layers=layers)
    encoder.eval()
    encodings = [tokenizer.encode(text) for text in TEXTS]
    together = encode(encoder, tokenizer.collate(encodings))
    assert together.shape[2] == encoder.hidden_size == 256
    for row, encoding in enumerate(encodings):
        alone = encode(encoder, tokenizer.collate([encoding]))
        torch.testing.assert_close(
            together[row, : len(encoding)], alone[0, : len(encoding)], atol=1e-5, rtol=1e-5
        )


def test_its_characters_start_as_those_of_tiny_in_the_spread_of_random_ones():
    encoder, _ = made()
    tiny, _ = load("tiny", settings_of("tiny")())
    ids = torch.tensor([[5, 700, 9000]])
    like = torch.cosine_similarity(encoder.word_vectors(ids), tiny.word_vectors(ids), -1)
    torch.testing.assert_close(like, torch.ones(1, 3))
    assert 0.45 < float(encoder.characters.weight.detach().std()) < 0.55
    with pytest.raises(SettingsError, match=r"expected \(10000, 256\), got \(10000, 32\)"):
        made(character_size=32)
    assert made(character_size=32, start="random")[0].characters.weight.shape == (10000, 32)


def test_spec_builds_the_same_architecture():
    encoder = Encoder(50, {"start": "random", "character_size": 8, "gru_size": 4, "layers": 2})
    again = build(encoder.spec())
    assert {n: p.shape for n, p in again.named_parameters()} == {
        n: p.shape for n, p in encoder.named_parameters()
    }
    depths = {encoder.depth_of(name) for name, _ in encoder.named_parameters()}
    assert depths == {0, 1, 2}
