"""Rows of a linear layer do not depend on how many they are."""

import pytest
import torch
from torch import nn

from nlpkit.layers.steady_linear import FEW, SteadyLinear, steady


@pytest.mark.parametrize("size", [31, 256])
def test_a_row_has_the_same_bits_alone_and_among_others(size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(size, 3 * size), nn.ReLU(), nn.Linear(3 * size, 7)).eval()
    steady(model)
    rows_NH = torch.randn(64, size)
    with torch.inference_mode():
        expected = model(rows_NH)[:1]
        for count in (1, 2, 3, FEW, 5, 17, 33):
            assert torch.equal(model(rows_NH[:count])[:1], expected), count
        assert model(rows_NH[:2].view(1, 2, size)).shape == (1, 2, 7)
        assert model(rows_NH[:0]).shape == (0, 7)


def test_training_and_weights_are_as_they_were():
    plain, other = nn.Linear(5, 3), nn.Linear(5, 3)
    other.load_state_dict(plain.state_dict())
    model = nn.Sequential(other)
    steady(model)
    assert isinstance(other, SteadyLinear)
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    row_1H = torch.randn(1, 5)
    assert torch.equal(model.train()(row_1H), plain(row_1H))
