"""Parameter groups, schedules, and the average of the weights."""

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nlpkit import optim
from nlpkit.config import build
from nlpkit.encoders import dgcnn
from nlpkit.errors import SettingsError
from nlpkit.inference.batching import split
from nlpkit.optim import new_optimizer
from nlpkit.optim.ema import WeightAverage
from nlpkit.optim.groups import parameter_groups
from nlpkit.optim.muon import orthogonal
from nlpkit.optim.schedule import multiplier, parse_schedule
from nlpkit.training.batching import Batches
from nlpkit.training.settings import TrainConfig


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = dgcnn.Encoder(20, {"hidden_size": 8, "dilations": (1, 2), "lstm_layers": 0})
        self.head = nn.Linear(8, 3)


def rates_of(model, **options):
    settings = {
        "learning_rate": 1.0,
        "weight_decay": 0.1,
        "layer_decay": 1.0,
        "rates": (),
        **options,
    }
    groups = parameter_groups(model, **settings)
    assert sum(group.size for group in groups) == sum(p.numel() for p in model.parameters())
    return {
        name: (group.learning_rate, group.weight_decay) for group in groups for name in group.names
    }


def test_every_layer_learns_at_its_own_rate():
    rates = rates_of(Model(), layer_decay=0.5)
    assert rates["head.weight"] == (1.0, 0.1)
    assert rates["encoder.layers.1.weight"][0] == 0.5
    assert rates["encoder.layers.0.weight"][0] == 0.25
    assert rates["encoder.characters.weight"][0] == 0.125


def test_vectors_have_no_weight_decay():
    rates = rates_of(Model())
    assert rates["head.bias"][1] == rates["encoder.output_norm.weight"][1] == 0.0


def test_the_first_pattern_that_fits_wins():
    rates = rates_of(Model(), rates=[r"head\.bias=3", "head=10", r"characters|tags=0.5"])
    assert rates["head.bias"][0] == 3.0
    assert rates["head.weight"][0] == 10.0
    assert rates["encoder.tags.weight"][0] == 0.5
    assert rates["encoder.layers.0.weight"][0] == 1.0


@pytest.mark.parametrize(
    "rates",
    [["head"], ["head=x"], ["(=1"], ["=1"], ["head=-1"], ["head=nan"], ["head=inf"]],
)
def test_a_broken_pattern_is_an_error(rates):
    with pytest.raises(SettingsError, match="train.rates: "):
        build(TrainConfig, {"rates": rates}, "train")


@pytest.mark.parametrize("rates", [["nothing=2"], ["head=1", "head=2"]])
def test_an_unused_pattern_is_an_error(rates):
    with pytest.raises(SettingsError, match="rates"):
        rates_of(Model(), rates=rates)


def test_the_schedule_is_piecewise_linear():
    points = parse_schedule("0:0 0.1:1 0.5:1 1:0")
    values = [multiplier(points, step + 0.5, 100) for step in (0, 5, 10, 30, 50, 75, 100)]
    assert values == pytest.approx([0, 0.5, 1, 1, 1, 0.5, 0])
    assert 0 < multiplier(points, 1, 1) <= 1


@pytest.mark.parametrize(
    "text",
    ["", "0:0", "0.1:1 1:0", "0:0 1:1 0.5:2", "a:b", "0:nan 1:0", "0:0 nan:1 1:0", "0:-1 1:0"]
    + ["0:inf 1:0", "0 1"],
)
def test_a_broken_schedule_is_an_error(text):
    with pytest.raises(SettingsError, match="train.schedule: "):
        build(TrainConfig, {"schedule": text}, "train")


def test_the_average_of_constant_weights_is_the_weights_from_the_first_step():
    model = nn.Linear(2, 2)
    average = WeightAverage(model, 0.999)
    average.update()
    before = model.weight.clone()
    with average.applied():
        torch.testing.assert_close(model.weight, before)
    with torch.no_grad():
        model.weight.add_(1.0)
    average.update()
    with average.applied():
        weight = 0.001 / (1 - 0.999**2)
        torch.testing.assert_close(model.weight, before + weight)
    torch.testing.assert_close(model.weight, before + 1.0)


def test_every_epoch_has_every_example_once():
    batches = Batches([5, 9, 2, 7, 7, 3, 1], batch_size=3, seed=4)
    for epoch in range(3):
        steps = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
        assert sorted(index for step in steps for index in batches[step]) == list(range(7))
    first = [batches[step].tolist() for step in range(9)]
    assert first == [Batches(batches.lengths, 3, 4)[step].tolist() for step in range(9)]
    assert first != [Batches(batches.lengths, 3, 5)[step].tolist() for step in range(9)]


@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=300), st.integers(1, 9), st.integers(0, 9)
)
def test_batches_of_equal_tokens_lose_nothing_and_are_as_many(lengths, batch_size, seed):
    batches = Batches(lengths, batch_size, seed, by_tokens=True)
    found = [batches[step] for step in range(batches.per_epoch)]
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    assert all(len(batch) for batch in found)


def test_batches_of_equal_tokens_are_nearly_equal():
    lengths = np.random.default_rng(1).integers(5, 200, 4000)
    tokens = {by: [] for by in (False, True)}
    for by_tokens, sums in tokens.items():
        batches = Batches(lengths, 16, 1, by_tokens)
        sums += [lengths[batches[step]].sum() for step in range(batches.per_epoch)]
    assert max(tokens[True]) < 1.3 * np.mean(tokens[True])
    assert max(tokens[False]) > 1.8 * np.mean(tokens[False])


def test_pieces_keep_to_the_budget_and_lose_nothing():
    lengths = [5, 90, 2, 7, 7, 3, 1]
    pieces = list(split(range(7), lengths, max_tokens=14))
    assert sorted(index for piece in pieces for index in piece) == list(range(7))
    assert all(len(p) == 1 or len(p) * max(lengths[i] for i in p) <= 14 for p in pieces)
    assert len(list(split(range(7), lengths, max_tokens=10**6, parts=3))) >= 3


def by_singular_values(matrix):
    """(the result, its singular values) of Muon's iteration in float64, on the values alone."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right, values


@pytest.mark.parametrize("shape", [(8, 8), (8, 32), (32, 8), (8, 12), (64, 256)])
def test_muon_makes_a_gradient_nearly_orthogonal(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    expected, values = by_singular_values(matrix)
    torch.testing.assert_close(orthogonal(matrix).double(), expected, rtol=0, atol=1e-4)
    assert values.min() > 0.5
    assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (16, 16)])
def test_muon_takes_matrices_without_full_rank_and_of_small_values(shape):
    generator = torch.Generator().manual_seed(2)
    rows, columns = shape
    thin = torch.randn(rows, 3, generator=generator) @ torch.randn(3, columns, generator=generator)
    expected, _ = by_singular_values(thin)
    torch.testing.assert_close(orthogonal(thin).double(), expected, rtol=0, atol=1e-3)
    assert torch.equal(orthogonal(torch.zeros(shape)), torch.zeros(shape))
    falling = torch.randn(shape, generator=generator) * torch.logspace(0, -4, rows)[:, None]
    expected, _ = by_singular_values(falling)
    torch.testing.assert_close(orthogonal(falling).double(), expected, rtol=0, atol=5e-3)


def test_every_way_of_learning_has_one_default_optimizer_that_knows_its_rate():
    assert optim.names() == ["adamw", "lamb", "lion", "muon", "sgdm"]
    suits = [
        way
        for name in optim.names()
        for way in importlib.import_module(f"nlpkit.optim.{name}").SUITS
    ]
    assert sorted(suits) == sorted(optim.WAYS)
    for way in optim.WAYS:
        assert 0 < optim.learning_rate(optim.default_for(way), way) < 0.01
    assert dgcnn.Encoder.learns_as in optim.WAYS


def test_an_unknown_optimizer_is_named():
    with pytest.raises(
        SettingsError, match=r'train.optimizer: expected one of adamw, lamb, .*"adamw"\?'
    ):
        build(TrainConfig, {"optimizer": "adam"}, "train")


def test_muon_takes_the_linear_layers_of_the_encoder_and_adamw_the_rest():
    torch.manual_seed(0)
    model, twin = Model(), Model()
    twin.load_state_dict(model.state_dict())
    made = []
    for one, name in ((model, "muon"), (twin, "adamw")):
        groups = parameter_groups(one, 0.01, 0.1, 1.0, ())
        made.append(new_optimizer(name, groups, bf16=False))
        for _ in range(3):
            for number, parameter in enumerate(one.parameters()):
                parameter.grad = torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(number)
                )
            made[-1].step()
    linear = {
        f"encoder.{name}.weight"
        for name, m in model.encoder.named_modules()
        if isinstance(m, nn.Linear)
    }
    assert linear
    others = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        same = torch.allclose(parameter, others[name], rtol=0, atol=1e-6)
        assert same != (name in linear), name
