"""The recurrence of ordered neurons: number by number as its equations say, and its gradient."""

import math

import pytest
import torch

from nlpkit.layers.ordered_neurons import OrderedNeurons, run


def sigmoid(number):
    return 1 / (1 + math.exp(-number))


def cumax(logits):
    powers = [math.exp(logit) for logit in logits]
    return [sum(powers[: k + 1]) / sum(powers) for k in range(len(powers))]


def one_by_one(inputs_TG, weight_GH, chunk):
    """(hidden, level) of one text, a number at a time: equations 6 to 14 of the paper."""
    size = weight_GH.shape[1]
    levels = size // chunk
    hidden = [0.0] * size
    cells = [0.0] * size
    for inputs in inputs_TG.tolist():
        gates = list(inputs)
        for gate, row in enumerate(weight_GH.tolist()):
            for number, weight in zip(hidden, row, strict=True):
                gates[gate] += weight * number
        keep = cumax(gates[:levels])
        write = [1 - height for height in cumax(gates[levels : 2 * levels])]
        forget, put, out, new = (
            gates[2 * levels + part * size : 2 * levels + (part + 1) * size] for part in range(4)
        )
        for place in range(size):
            of_keep = keep[place // chunk]
            of_write = write[place // chunk]
            both = of_keep * of_write
            kept = sigmoid(forget[place]) * both + (of_keep - both)
            written = sigmoid(put[place]) * both + (of_write - both)
            cells[place] = kept * cells[place] + written * math.tanh(new[place])
            hidden[place] = sigmoid(out[place]) * math.tanh(cells[place])
        yield list(hidden), 1 - sum(keep) / levels


def layer_and_inputs(size=6, chunk=2, steps=5, rows=3):
    torch.manual_seed(size)
    layer = OrderedNeurons(size, size, chunk).double()
    inputs = torch.randn(steps, rows, len(layer.weight), dtype=torch.double, requires_grad=True)
    return layer, inputs


@pytest.mark.parametrize(("size", "chunk"), [(6, 2), (6, 1), (4, 4), (1, 1)])
def test_states_and_levels_are_those_of_the_equations(size, chunk):
    layer, inputs_TBG = layer_and_inputs(size, chunk)
    found_TBH, level_TB = layer(inputs_TBG)
    with torch.no_grad():
        again_TBH, same_TB = layer(inputs_TBG)
    torch.testing.assert_close(again_TBH, found_TBH, rtol=0, atol=1e-15)
    torch.testing.assert_close(same_TB, level_TB, rtol=0, atol=1e-15)
    for row in range(inputs_TBG.shape[1]):
        expected = list(one_by_one(inputs_TBG[:, row], layer.weight, chunk))
        states = torch.tensor([hidden for hidden, _ in expected], dtype=torch.double)
        levels = torch.tensor([level for _, level in expected], dtype=torch.double)
        torch.testing.assert_close(found_TBH[:, row], states, rtol=0, atol=1e-12)
        torch.testing.assert_close(level_TB[:, row], levels, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "chunk"), [(6, 2), (4, 1), (3, 3)])
def test_the_gradient_by_hand_is_right(size, chunk):
    layer, inputs = layer_and_inputs(size, chunk, steps=3, rows=2)
    layer.weight.data *= 3
    torch.autograd.gradcheck(lambda x, w: run_with(layer, x, w), (inputs, layer.weight))
    torch.autograd.gradgradcheck(lambda x, w: run_with(layer, x, w), (inputs, layer.weight))
    weights = torch.randn(3, 2, size, dtype=torch.double)
    grads = torch.autograd.grad((layer(inputs)[0] * weights).sum(), (inputs, layer.weight))
    plain = torch.autograd.grad(
        (run(inputs, layer.weight, chunk)[0] * weights).sum(), (inputs, layer.weight)
    )
    for found, expected in zip(grads, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def run_with(layer, inputs, weight):
    """The states of the layer as a function of its tensors."""
    assert weight is layer.weight
    return layer(inputs)[0]


def test_levels_lie_between_0_and_1_and_a_gate_is_open_at_the_end():
    layer, inputs = layer_and_inputs(8, 2, steps=20)
    level_TB = layer(5 * inputs)[1]
    assert (level_TB >= 0).all()
    assert (level_TB <= 1 - 1 / 4).all()  # the last of the 4 numbers of the gate is 1


def test_a_chunk_divides_the_size():
    with pytest.raises(ValueError, match="chunk: expected a divisor of 6, got 4"):
        OrderedNeurons(6, 6, 4)
