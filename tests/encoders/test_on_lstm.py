"""on_lstm: what each direction sees, no trace of padding, and its trees' levels."""

import pytest
import torch

from nlpkit import encoders
from nlpkit.encoders import build, encode
from nlpkit.errors import SettingsError

SMALL = {"layers": 2, "hidden_size": 32, "chunk": 4}
TEXTS = ["今天下雨的长度"[:2] * count for count in (1, 3, 8, 40, 56, 62, 75, 95, 101)]
KINDS = [(c, d) for c in ("on_lstm", "lstm") for d in ("both", "forward")]


def small(cell="on_lstm", directions="both", **more):
    """(encoder, tokenizer) in evaluation mode, with weights that make every difference show."""
    torch.manual_seed(0)
    config = encoders.settings_of("on_lstm")(cell=cell, directions=directions, **SMALL, **more)
    encoder, tokenizer = encoders.load("on_lstm", config)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return encoder.eval(), tokenizer


def hidden_of(encoder, tokenizer, texts):
    """hidden_TH of every text, without its padding."""
    tokens = tokenizer.collate([tokenizer.encode(text) for text in texts])
    with torch.inference_mode():
        hidden_BTH = encode(encoder, tokens)
    return [hidden_TH[mask_T] for hidden_TH, mask_T in zip(hidden_BTH, tokens.mask_BT, strict=True)]


@pytest.mark.parametrize(("cell", "directions"), KINDS)
def test_a_text_alone_has_the_states_it_has_in_a_batch_bit_for_bit(cell, directions):
    encoder, tokenizer = small(cell, directions)
    alone = [hidden_of(encoder, tokenizer, [text])[0] for text in TEXTS]
    for first in range(len(TEXTS) - 1):
        for end in (first + 2, len(TEXTS)):
            together = hidden_of(encoder, tokenizer, TEXTS[first:end])
            for found, expected in zip(together, alone[first:end], strict=True):
                assert torch.equal(found, expected)


@pytest.mark.parametrize(("cell", "directions"), KINDS)
def test_each_stack_sees_its_side_alone(cell, directions):
    encoder, tokenizer = small(cell, directions)
    one, two = hidden_of(encoder, tokenizer, ["今天下雨", "今天下雪"])
    size = SMALL["hidden_size"]
    assert one.shape[1] == encoder.hidden_size == size * encoder.directions
    changed = 4  # behind [CLS] and three characters
    assert torch.equal(one[:changed, :size], two[:changed, :size])
    assert not torch.equal(one[changed, :size], two[changed, :size])
    if directions == "both":
        assert torch.equal(one[changed + 1 :, size:], two[changed + 1 :, size:])
        assert not torch.equal(one[0, size:], two[0, size:])


@pytest.mark.parametrize(("cell", "directions"), KINDS)
def test_training_and_prediction_give_the_same_numbers(cell, directions):
    encoder, tokenizer = small(cell, directions, dropout=0.0)
    tokens = tokenizer.collate([tokenizer.encode(text) for text in TEXTS[:4]])
    with torch.no_grad():
        expected = encode(encoder, tokens)
    found = encode(encoder.train(), tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize(("cell", "directions"), KINDS)
def test_spec_builds_the_same_architecture(cell, directions):
    encoder, _ = small(cell, directions)
    again = build({**encoder.spec(), "head": True})
    shapes = {name: p.shape for name, p in again.named_parameters() if not name.startswith("head.")}
    assert shapes == {name: p.shape for name, p in encoder.named_parameters()}
    assert sorted({again.depth_of(name) for name, _ in again.named_parameters()}) == [0, 1, 2, 3]
    assert again.token_logits(torch.zeros(3, 32)).shape == (3, encoder.vocabulary_size)
    with pytest.raises(SettingsError, match="without its language-model head"):
        encoder.token_logits(torch.zeros(3, 32))


def test_levels_are_of_the_text_alone():
    encoder, tokenizer = small()
    tokens = tokenizer.collate([tokenizer.encode(text) for text in TEXTS[:3]])
    with torch.inference_mode():
        first, second = (encoder.levels(tokens.token_ids_BT, layer) for layer in (1, 2))
        assert not torch.equal(first, second)
        for row, text in enumerate(TEXTS[:3]):
            alone = tokenizer.collate([tokenizer.encode(text)])
            length = len(text) + 2
            found = encoder.levels(alone.token_ids_BT, 2)
            assert torch.equal(found[0, :length], second[row, :length])


def test_levels_that_there_are_not():
    encoder, _ = small()
    token_ids_BT = torch.tensor([[2, 5, 3]])
    for layer in (0, 3):
        with pytest.raises(SettingsError, match=f"layer: expected 1 to 2, got {layer}"):
            encoder.levels(token_ids_BT, layer)
    plain, _ = small("lstm")
    with pytest.raises(SettingsError, match="plain LSTMs have no master gates"):
        plain.levels(token_ids_BT, 1)


def test_a_chunk_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="chunk: expected a divisor of 32, got 5"):
        encoders.settings_of("on_lstm")(hidden_size=32, chunk=5)
