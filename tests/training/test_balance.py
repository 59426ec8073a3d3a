"""How losses are weighed: by hand, on gradients that oppose each other, and whatever way a step is
cut."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from small_runs import records_of, save_run

from nlpkit.config import build
from nlpkit.errors import SettingsError
from nlpkit.inference.devices import accelerator_for
from nlpkit.training import balance, techniques
from nlpkit.training.apart import SeveralLosses
from nlpkit.training.balance.pareto import shortest
from nlpkit.training.settings import TrainConfig
from nlpkit.training.state import TrainState
from nlpkit.training.step import TrainingStep

G = torch.tensor([[10.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
"""The gradients of two losses: along their sum the second loss rises."""


class Encoder(torch.nn.Module):
    depth = 0

    def __init__(self):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def depth_of(self, name):
        return 0


class Model(torch.nn.Module):
    """Two losses (`G` theta + noise + 7) + head^2, linear in what they share."""

    loss_names = ("one", "other")

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.heads = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.unused = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))

    def losses(self, batch):
        losses_B2 = batch.noise_B1 * (self.encoder.theta @ G.T) + 7 + self.heads**2
        return dict(zip(self.loss_names, losses_B2.T, strict=True))

    def forward(self, batch):
        return sum(self.losses(batch).values())


@dataclass(frozen=True)
class Batch:
    noise_B1: torch.Tensor

    def to(self, device):
        return self


NOISE_B1 = torch.linspace(0.5, 1.5, 8, dtype=torch.float64)[:, None]  # its mean is 1


def step_of(call, model=None, **settings):
    values = {"optimizer": "sgdm", "learning_rate": 1e-3, "schedule": "0:1 1:1", "clip_norm": 0}
    config = TrainConfig(**{**values, "weight_decay": 0.0, "balance": call, **settings})
    return TrainingStep(TrainState(model or Model(), config, 1000, accelerator_for("cpu", "fp32")))


def pieces_of(pieces=1):
    return [Batch(noise_B1) for noise_B1 in NOISE_B1.chunk(pieces)]


def losses_at(model):
    return torch.stack([loss_B.mean() for loss_B in model.losses(Batch(NOISE_B1)).values()])


NORMS = G.norm(dim=1)
MEAN = 8.0  # both losses at the start
BY_HAND = {
    "sum": ([1, 1], [1, 1]),
    "prior(losses=[2.0, 5.0])": ([1 / 2, 1 / 5], [1 / 2, 1 / 5]),
    "initial": ([1 / MEAN, 1 / MEAN], [1 / MEAN, 1 / MEAN]),
    "scale_free": ([1 / MEAN, 1 / MEAN], [1 / MEAN, 1 / MEAN]),
    "generalised_mean": ([1, 1], [1, 1]),
    "generalised_mean(exponent=3.0)": ([1, 1], [1, 1]),
    "normalised": ((1 / NORMS).tolist(), (1 / NORMS).tolist()),
    "pareto": ([2 / 11, 20 / 11], [1, 1]),
}
"""Call -> the weights for the encoder and for the heads."""


def test_all_are_computed_by_hand_here():
    assert sorted({call.partition("(")[0] for call in BY_HAND}) == balance.names()


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("call", BY_HAND)
def test_the_gradient_is_the_weighted_sum_however_a_step_is_cut(call, pieces):
    step = step_of(call)
    model = step.state.model
    total = step.combine(step.backward(lambda: pieces_of(pieces)))
    encoder, heads = (torch.tensor(some, dtype=torch.float64) for some in BY_HAND[call])
    assert total.loss == pytest.approx(2 * MEAN)  # as it is, not weighed
    assert total.examples == 8
    torch.testing.assert_close(model.encoder.theta.grad, encoder @ G)
    torch.testing.assert_close(model.heads.grad, 2 * heads)
    assert model.unused.grad is None


@pytest.mark.parametrize(
    ("call", "falls"), [("sum", False), ("pareto", True), ("normalised", True)]
)
def test_where_gradients_oppose_each_other_the_sum_lets_a_loss_rise(call, falls):
    step = step_of(call, rates=["heads=0"])
    before = losses_at(step.state.model)
    for _ in range(5):
        step(lambda: pieces_of(2))
    first, second = (losses_at(step.state.model) - before).tolist()
    assert first < 0
    assert (second < 0) is falls


def test_the_weights_of_losses_of_different_size():
    losses_L = torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64)
    memory = {}
    assert balance.parse("scale_free").weights(losses_L, None, memory).tolist() == [0.25, 1, 0]
    geometric_L = balance.parse("generalised_mean").weights(losses_L, None, memory)
    torch.testing.assert_close(geometric_L.tolist(), [0.5, 2.0, 0.0])
    square = balance.parse("generalised_mean(exponent=2)").weights(losses_L[:2], None, memory)
    root = (17 / 2) ** 0.5  # of the mean square
    torch.testing.assert_close(square.tolist(), [4 / root, 1 / root])
    assert not memory
    initial = balance.parse("initial(steps=2)")
    for losses in ([4.0, 1.0], [2.0, 3.0], [100.0, 100.0]):
        found = initial.weights(torch.tensor(losses, dtype=torch.float64), None, memory)
    assert found.tolist() == [1 / 3, 1 / 2]
    assert all(name.startswith("balance.") for name in memory)


@pytest.mark.parametrize("losses", [2, 3, 6])
def test_the_shortest_mixture_is_found_from_inner_products(losses):
    random = np.random.default_rng(losses)
    for _ in range(20):
        vectors_LD = random.normal(size=(losses, 5)) + random.normal(size=5)
        weights_L = shortest(vectors_LD @ vectors_LD.T, 5000)
        mixture_D = weights_L @ vectors_LD
        assert weights_L.min() >= 0
        assert weights_L.sum() == pytest.approx(1)
        slack = 1e-2 * np.linalg.norm(vectors_LD, axis=1).max() ** 2
        assert (vectors_LD @ mixture_D >= mixture_D @ mixture_D - slack).all()
    equal_LD = np.ones((losses, 2))
    assert shortest(equal_LD @ equal_LD.T, 10).sum() == pytest.approx(1)


def test_a_loss_without_gradient_does_not_stop_the_others():
    gram = torch.tensor([[0.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    losses_L = torch.ones(2, dtype=torch.float64)
    for call, wanted in (("pareto", [0, 1]), ("normalised", [0, 0.5])):
        assert balance.parse(call).weights(losses_L, lambda: gram, {}).tolist() == wanted


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("paretto", 'train.balance: .*"paretto"; did you mean "pareto"'),
        ("prior(losses=[1, 0])", "prior.losses: expected a number above 0, got 0"),
        ("initial(step=2)", 'unknown setting .*"; did you mean "steps"'),
        ("generalised_mean(exponent=1e9)", "exponent: expected at most 100"),
        ("", "expected name.argument=value"),
    ],
)
def test_an_unknown_or_broken_balance_is_named(call, says):
    with pytest.raises(SettingsError, match=says):
        build(TrainConfig, {"balance": call}, "train")


CHANGES_A_LOSS = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Technique:
    def objective(self, step, inner, batch):
        return 2 * inner(batch)
"""


def test_one_loss_is_not_weighed_and_a_changed_one_is_not_taken_apart(tmp_path, monkeypatch):
    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Encoder()

    with pytest.raises(SettingsError, match="train.balance: .* has one loss: expected sum"):
        step_of("pareto", One())
    (tmp_path / "twofold.py").write_text(CHANGES_A_LOSS)
    monkeypatch.setattr(techniques, "__path__", [*techniques.__path__, str(tmp_path)])
    step_of("sum", techniques=("twofold",))
    with pytest.raises(SettingsError, match="train.techniques: .* expected train.balance=sum"):
        step_of("pareto", techniques=("twofold",))


@pytest.mark.parametrize("call", ["prior", "prior(losses=[1])", "prior(losses=[1, 2, 3])"])
def test_a_prior_is_of_each_loss(call):
    with pytest.raises(SettingsError, match="expected 2 numbers, for one, other, got [013]"):
        step_of(call)


@pytest.mark.parametrize("name", ["gplinker", "entity_linking"])
def test_the_losses_of_a_model_add_up_to_its_loss(name, tmp_path):
    run = save_run(name, tmp_path / name)
    examples = [run.task.read(record) for record in records_of(name)]
    batch = run.task.collate(examples)
    assert isinstance(run.model, SeveralLosses)
    found = run.model.losses(batch)
    assert tuple(found) == run.model.loss_names
    torch.testing.assert_close(sum(found.values()), run.model(batch))
    assert all(loss_B.shape == (len(examples),) for loss_B in found.values())
