"""dgcnn: no trace of padding."""

import torch

from nlpkit.encoders import build, encode, load, settings_of
from nlpkit.encoders.dgcnn import BiLSTM, Encoder


def test_the_backward_lstm_starts_at_the_end_of_each_text():
    lstm = BiLSTM(6, 4, 0.0).eval()
    hidden = torch.randn(2, 5, 6)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])[..., None].float()
    both = lstm(hidden * mask, mask)
    alone = lstm(hidden[1:, :3], mask[1:, :3])
    torch.testing.assert_close(both[1:, :3], alone)


def test_a_text_alone_has_the_states_it_has_in_a_batch():
    encoder, tokenizer = load("dgcnn", settings_of("dgcnn")())
    encoder.eval()
    encodings = [
        tokenizer.encode(text) for text in ("沈从文，1902年生于湖南凤凰。", "他写了《长河》")
    ]
    together = encode(encoder, tokenizer.collate(encodings))
    for row, encoding in enumerate(encodings):
        alone = encode(encoder, tokenizer.collate([encoding]))
        torch.testing.assert_close(
            together[row, : len(encoding)], alone[0, : len(encoding)], atol=1e-5, rtol=1e-5
        )


def test_spec_builds_the_same_architecture():
    encoder = Encoder(50, {"hidden_size": 16, "dilations": (1, 2), "lstm_layers": 1})
    again = build(encoder.spec())
    assert {n: p.shape for n, p in again.named_parameters()} == {
        n: p.shape for n, p in encoder.named_parameters()
    }
    assert sorted({encoder.depth_of(name) for name, _ in encoder.named_parameters()}) == [
        0,
        1,
        2,
        3,
    ]
