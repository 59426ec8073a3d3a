"""Products of matrices whose rows depend neither on how many they are nor on padding."""

import pytest
import torch
from torch import nn

from nlpkit.layers.steady_products import SteadyLinear, steady, weighted_sums


@pytest.fixture(params=[1, 2])
def threads(request):
    """How many share a product."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", [31, 256])
def test_a_row_has_the_same_bits_alone_and_among_others(size, threads):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(size, 3 * size), nn.ReLU(), nn.Linear(3 * size, 7)).eval()
    steady(model)
    rows_NH = torch.randn(64, size)
    with torch.inference_mode():
        expected = model(rows_NH)
        for count in range(1, 64):
            assert torch.equal(model(rows_NH[:count]), expected[:count]), count
        assert model(rows_NH[:2].view(1, 2, size)).shape == (1, 2, 7)
        assert model(rows_NH[:0]).shape == (0, 7)


@pytest.mark.parametrize("size", [2, 5, 8, 64, 197])
def test_a_single_output_does_not_depend_on_the_number_of_rows(size):
    model = nn.Sequential(nn.Linear(size, 1)).eval()
    steady(model)
    rows_NH = torch.randn(150, size)
    with torch.inference_mode():
        expected_N1 = model(rows_NH)
        assert expected_N1.shape == (150, 1)
        for count in range(1, 150):
            assert torch.equal(model(rows_NH[:count]), expected_N1[:count])


def test_training_and_weights_are_as_they_were():
    plain, other = nn.Linear(5, 3), nn.Linear(5, 3)
    other.load_state_dict(plain.state_dict())
    model = nn.Sequential(other)
    steady(model)
    assert isinstance(other, SteadyLinear)
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    row_1H = torch.randn(1, 5)
    assert torch.equal(model.train()(row_1H), plain(row_1H))


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 30])
def test_weighted_sums_do_not_depend_on_padding(rows):
    weight_QK = torch.rand(2, rows, 200)
    value_KD = torch.randn(2, 200, 24)
    expected = weighted_sums(weight_QK, value_KD)
    torch.testing.assert_close(expected, weight_QK @ value_KD)
    for more in (16, 64, 200, 312):
        wide_QK = torch.nn.functional.pad(weight_QK, (0, more))
        wide_KD = torch.nn.functional.pad(value_KD, (0, 0, 0, more))
        assert torch.equal(weighted_sums(wide_QK, wide_KD), expected)


def test_weighted_sums_of_two_parts_are_padded_apart():
    weight_QK = torch.rand(1, 4, 60)
    value_KD = torch.randn(1, 60, 24)
    expected = weighted_sums(weight_QK, value_KD, 48)
    for more in (16, 80, 160):
        wide = []
        for part, dimension in ((weight_QK, 2), (value_KD, 1)):
            shape = list(part.shape)
            shape[dimension] = more
            source, written = part.split([48, 12], dimension)
            wide.append(torch.cat([source, part.new_zeros(shape), written], dimension))
        assert torch.equal(weighted_sums(*wide, 48 + more), expected)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_text_has_the_same_states_alone_and_among_others(kind, batch_first, threads):
    model = nn.ModuleList([kind(16, 8, batch_first=batch_first)]).eval()
    steady(model)
    input_BTH = torch.randn(20, 5, 16)
    with torch.inference_mode():
        expected = model[0](input_BTH if batch_first else input_BTH.transpose(0, 1))[0]
        expected = expected if batch_first else expected.transpose(0, 1)
        for count in range(1, 20):
            some = input_BTH[:count] if batch_first else input_BTH[:count].transpose(0, 1)
            found = model[0](some)[0]
            found = found if batch_first else found.transpose(0, 1)
            assert torch.equal(found, expected[:count]), count


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_recurrence_computes_in_the_type_of_its_weights(kind):
    model = nn.ModuleList([kind(8, 4, batch_first=True)]).eval()
    steady(model)
    input_BTH = torch.randn(3, 5, 8)
    with torch.no_grad():
        expected = model[0](input_BTH)[0]
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model[0](input_BTH)[0], expected)
            assert torch.equal(model[0](input_BTH[:1])[0], expected[:1])
        narrow = model[0](input_BTH.bfloat16())[0]
        assert narrow.dtype == torch.bfloat16
        doubled = model.double()[0](input_BTH.double())[0]
    torch.testing.assert_close(doubled.float(), expected)
