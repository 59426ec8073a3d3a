"""The gated convolution: its gradient by hand is that of the formula."""

from functools import partial

import torch

from nlpkit.layers.gated_convolution import _GatedConvolution


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
        assert torch.autograd.gradgradcheck(layer, (x, weight, bias))
        fixed = x.detach()  # as that of a first layer
        assert torch.autograd.gradgradcheck(partial(layer, fixed), (weight, bias))
