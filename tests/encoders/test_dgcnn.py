"""dgcnn: the gradient by hand, and no trace of padding."""

import torch

from nlpkit.encoders import build, encode, load, settings_of
from nlpkit.encoders.dgcnn import BiLSTM, Encoder, _GatedConvolution


def test_the_gradient_by_hand_is_that_of_the_formula():
    torch.manual_seed(0)
    mask = torch.ones(2, 6, 1, dtype=torch.float64)
    mask[1, 4:] = 0
    keep = torch.tensor([[0.0, 1.25, 1.25, 1.25]] * 2, dtype=torch.float64)[:, None]
    x, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in [(2, 6, 4), (8, 12), (8,)]
    )
    for dilation in (1, 2, 9):

        def layer(x, weight, bias, dilation=dilation):
            return _GatedConvolution.apply(x * mask, weight, bias, mask, keep, dilation)

        def formula(x, weight, bias, dilation=dilation):
            x = x * mask
            left, right = torch.zeros_like(x), torch.zeros_like(x)
            left[:, dilation:], right[:, :-dilation] = x[:, :-dilation], x[:, dilation:]
            gate, new = (torch.cat([left, x, right], -1) @ weight.T + bias).chunk(2, -1)
            return (x + gate.sigmoid() * (new * keep - x)) * mask

        torch.testing.assert_close(layer(x, weight, bias), formula(x, weight, bias))
        assert torch.autograd.gradcheck(layer, (x, weight, bias))


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
