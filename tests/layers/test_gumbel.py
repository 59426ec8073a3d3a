"""Latent vectors of choices: their noise, their divergence, their temperature, and a training that
does not depend on how its batches are cut."""

import math

import numpy as np
import pytest
import torch
from conftest import write_lines
from small_fits import steps_of

from nlpkit import samples
from nlpkit.config import build
from nlpkit.errors import SettingsError
from nlpkit.inference.devices import accelerator_for
from nlpkit.layers.gumbel import CategoricalLatent, gumbel_softmax
from nlpkit.tasks.cln.settings import Settings
from nlpkit.training.plan import Plan
from nlpkit.training.resume import open_fit
from nlpkit.training.step import TrainingStep


def made(**changes):
    torch.manual_seed(1)
    values = {"free": 0.1, "annealing": 10, "start": 1.0, "end": 0.01, **changes}
    return CategoricalLatent(5, 3, 4, 2, **values).double()


def log_probs(rows=6):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(rows, 3, 4, generator=generator, dtype=torch.float64).log_softmax(2)


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_the_argmax_is_an_exact_draw_at_any_temperature(temperature):
    p_K = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    noise = torch.from_numpy(np.random.default_rng(1).gumbel(size=(40_000, 4)))
    drawn = gumbel_softmax(p_K.log().expand(40_000, 4), noise, temperature)
    torch.testing.assert_close(drawn.sum(1), torch.ones(40_000, dtype=torch.float64))
    shares_K = torch.bincount(drawn.argmax(1), minlength=4) / 40_000
    torch.testing.assert_close(shares_K.double(), p_K, atol=0.01, rtol=0)
    if temperature < 0.1:
        assert (drawn.max(1).values > 0.9).double().mean() > 0.9  # nearly a choice


def test_noise_that_the_layer_draws_itself_has_the_same_distribution():
    latent = made().train()
    log_probs_BVK = log_probs(1).expand(30_000, 3, 4)
    drawn = latent.draw(log_probs_BVK).unflatten(1, (3, 4)).argmax(2)
    shares_VK = torch.nn.functional.one_hot(drawn, 4).double().mean(0)
    torch.testing.assert_close(shares_VK, log_probs_BVK[0].exp(), atol=0.015, rtol=0)


def test_the_draw_has_the_gradient_of_its_formula():
    noise = torch.randn(6, 3, 4, dtype=torch.float64)
    latent = made(start=0.7).train()
    inputs = log_probs().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: latent.draw(x, noise), (inputs,))
    by_hand = torch.exp((inputs + noise) / 0.7)
    by_hand = (by_hand / by_hand.sum(2, keepdim=True)).flatten(1)
    torch.testing.assert_close(latent.draw(inputs, noise), by_hand)


def test_the_divergence_is_that_from_equal_chances():
    latent = made()
    posterior = torch.distributions.Categorical(logits=log_probs())
    equal = torch.distributions.Categorical(logits=torch.zeros(6, 3, 4, dtype=torch.float64))
    expected_BV = torch.distributions.kl_divergence(posterior, equal)
    torch.testing.assert_close(latent.divergence(log_probs()), expected_BV)
    torch.testing.assert_close(latent.eval().cost(log_probs()), expected_BV.sum(1))
    latent.train().count_examples(5)
    half_B = expected_BV.clamp_min(0.1).sum(1) / 2
    torch.testing.assert_close(latent.cost(log_probs()), half_B)


def test_the_temperature_falls_by_a_constant_factor_and_stays():
    latent = made()
    found = []
    for _ in range(4):
        found.append(latent.temperature)
        latent.count_examples(5)
    assert found == pytest.approx([1.0, 0.1, 0.01, 0.01])


def test_outside_of_training_each_variable_is_a_choice():
    latent = made().float().eval()
    (log_probs_BVK,) = latent.infer(torch.randn(6, 7, 5), torch.ones(6, 7))
    z_BZ = latent.draw(log_probs_BVK)
    assert torch.equal(z_BZ.unflatten(1, (3, 4)).argmax(2), log_probs_BVK.argmax(2))
    other_BZ = latent.opposite(z_BZ)
    for z in (z_BZ, other_BZ, latent.from_prior(np.random.default_rng(3))[None]):
        assert z.unflatten(1, (3, 4)).sum(2).tolist() == [[1.0] * 3] * len(z)
    assert not (z_BZ * other_BZ).any()
    first_Z, last_Z = torch.arange(12), torch.arange(12, 24)
    for share, changed in ((0.0, 0), (0.5, 8), (1.0, 12)):
        expected = torch.cat([last_Z[:changed], first_Z[changed:]])
        assert torch.equal(latent.between(first_Z, last_Z, share), expected)
    nothing = latent.divergence(torch.full((1, 3, 4), -math.log(4)))
    assert float(nothing.abs().sum()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"categories": 4}, "categories: expected cln.latent"),
        ({"categories": 1, "latent": 4}, "categories: expected at least 2, got 1"),
        ({"gumbel_end": 0.0}, "gumbel_end: expected at least 0.001"),
    ],
)
def test_settings_that_mean_nothing_are_named(values, says):
    with pytest.raises(SettingsError, match=says):
        build(Settings, values, "cln")


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    records = list(samples.records("cln", 40, seed=2))
    return write_lines(tmp_path_factory.mktemp("lines") / "data.jsonl", records)


def fit_of(lines, out, **train):
    values = {"epochs": 9, "batch_size": 12, "precision": "fp32", "evaluate_every": 100.0, **train}
    own = {"latent": 4, "categories": 3, "max_length": 16, "annealing": 60}
    sections = {"train": values, "cln": own, "encoder": {"dropout": 0.0}}
    plan = Plan("cln", (str(lines),), out, values=(sections,), device="cpu")
    return open_fit(plan, accelerator_for("cpu", "fp32"))


def gradients_of(fit, number):
    """(loss, gradient of a step by name), before the optimizer takes it."""
    step = TrainingStep(fit.state)
    total = step.combine(step.backward(lambda: fit.micro_batches(number)))
    named = fit.run.model.named_parameters()
    found = {name: p.grad.clone() for name, p in named if p.grad is not None}
    fit.state.optimizer.zero_grad()
    return total.loss, found


def test_a_step_does_not_depend_on_how_its_batch_is_cut(lines, tmp_path):
    whole = fit_of(lines, tmp_path / "whole")
    cut = fit_of(lines, tmp_path / "cut", accumulate=4)
    for fit in (whole, cut):
        torch.manual_seed(3)
        for parameter in fit.run.model.parameters():
            if not parameter.any():  # at 0 the norms would let no z through
                torch.nn.init.normal_(parameter, std=0.1)
    for number in (0, 1):
        loss, gradient = gradients_of(whole, number)
        other_loss, other = gradients_of(cut, number)
        assert other_loss == pytest.approx(loss, rel=1e-5)
        for name, tensor in gradient.items():
            torch.testing.assert_close(other[name], tensor, atol=2e-4, rtol=1e-3, msg=name)
        assert float(gradient["latent.posterior.weight"].norm()) > 1e-3
    one, again = (next(iter(whole.micro_batches(number))).noise for number in (0, 0))
    assert torch.equal(one, again)
    assert not torch.equal(one, next(iter(whole.micro_batches(1))).noise)


def test_it_goes_on_bit_for_bit_after_an_interruption(lines, tmp_path):
    whole = steps_of(fit_of(lines, tmp_path / "whole"), 3)
    cut = fit_of(lines, tmp_path / "cut")
    for event in cut.events():
        if event.step == 1:
            cut.state.interrupted = True
    resumed = fit_of(lines, tmp_path / "cut")
    latent = resumed.run.model.latent
    assert latent.temperature == pytest.approx(0.1 ** (int(latent.seen) / 60))
    assert int(latent.seen) == sum(len(resumed.batches[number]) for number in range(2))
    losses, weights = steps_of(resumed, 3)
    assert losses == whole[0][2:]
    for name, tensor in whole[1].items():
        assert torch.equal(weights[name], tensor), name
