"""A classifier that also learns from vectors that a generator makes up: exact for any cut, resumed
exactly, out of the way where it is off, and refused where it means nothing."""

import pytest
import torch
from conftest import DRY, SMALL, write_lines
from small_fits import steps_of

from nlpkit import samples
from nlpkit.errors import SettingsError
from nlpkit.inference.devices import accelerator_for
from nlpkit.layers.adversarial import CRITICS
from nlpkit.training.plan import Plan
from nlpkit.training.resume import open_fit
from nlpkit.training.step import TrainingStep


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    records = list(samples.records("classification", 40, seed=2))
    return write_lines(tmp_path_factory.mktemp("lines") / "data.jsonl", records)


def fit_of(lines, out, own, encoder=(), **train):
    values = {"epochs": 9, "batch_size": 12, "precision": "fp32", "evaluate_every": 100.0, **train}
    sections = {"train": values, "classification": own, "encoder": {**SMALL, **dict(encoder)}}
    files = (str(lines),)
    plan = Plan("classification", files, out, encoder="dgcnn", values=(sections,), device="cpu")
    return open_fit(plan, accelerator_for("cpu", "fp32"))


def gradients_of(fit):
    """(loss, gradient of the first step by name), before the optimizer takes it."""
    step = TrainingStep(fit.state)
    total = step.combine(step.backward(lambda: fit.micro_batches(0)))
    named = fit.run.model.named_parameters()
    return total.loss, {name: p.grad.clone() for name, p in named if p.grad is not None}


@pytest.mark.parametrize("kind", CRITICS)
def test_a_step_is_the_same_however_it_is_cut_and_every_network_learns(lines, tmp_path, kind):
    own = {"gan": 0.5, "gan_critic": kind, "dropout": 0.0}
    torch.set_default_dtype(torch.float64)
    try:
        loss, whole = gradients_of(fit_of(lines, tmp_path / "whole", own, DRY))
        other_loss, cut = gradients_of(fit_of(lines, tmp_path / "cut", own, DRY, accumulate=4))
        _, plain = gradients_of(fit_of(lines, tmp_path / "plain", {"dropout": 0.0}, DRY))
    finally:
        torch.set_default_dtype(torch.float32)
    assert other_loss == pytest.approx(loss, rel=1e-6)
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, atol=1e-6, rtol=1e-6, msg=name)
        if name != "adversary.critic.last.bias":  # its two hinges cancel at the start
            assert bool(gradient.any()), name
    assert any(name.startswith("adversary.generator") for name in whole)
    for name in plain:
        if name.startswith("encoder."):  # it learns nothing from the adversary
            torch.testing.assert_close(whole[name], plain[name], atol=1e-6, rtol=1e-6, msg=name)
    assert not torch.equal(whole["classifier.weight"], plain["classifier.weight"])


@pytest.mark.parametrize("kind", ["penalty", "spectral"])
def test_it_goes_on_bit_for_bit_after_an_interruption(lines, tmp_path, kind):
    own = {"gan": 0.5, "gan_critic": kind}
    whole = steps_of(fit_of(lines, tmp_path / "whole", own), 3)
    cut = fit_of(lines, tmp_path / "cut", own)
    for event in cut.events():
        if event.step == 1:
            cut.state.interrupted = True
    losses, weights = steps_of(fit_of(lines, tmp_path / "cut", own), 3)
    assert losses == whole[0][2:]
    for name, tensor in whole[1].items():
        assert torch.equal(weights[name], tensor), name
    singular = [name for name in weights if name.endswith("u_O")]
    assert len(singular) == (3 if kind == "spectral" else 0)


def test_off_by_default_it_changes_no_bit(lines, tmp_path):
    plain = steps_of(fit_of(lines, tmp_path / "plain", {}), 2)
    off = fit_of(lines, tmp_path / "off", {"gan": 0.0, "gan_critic": "spectral", "gan_noise": 3})
    assert not any("adversary" in name for name in off.run.model.state_dict())
    assert off.augment is None
    losses, weights = steps_of(off, 2)
    assert losses == plain[0]
    assert all(torch.equal(weights[name], tensor) for name, tensor in plain[1].items())


def test_together_with_techniques_that_compare_distributions(lines, tmp_path):
    calls = ["rdrop", "vat(weight=0.1)", "embedding_gradient_penalty(weight=0.1)"]
    fit = fit_of(lines, tmp_path / "run", {"gan": 0.5}, techniques=calls)
    (loss,), _ = steps_of(fit, 1)
    assert loss > 0


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"gan": 1.0, "vib": 0.1}, "classification.gan: does not go with vib"),
        ({"gan": 1.0, "head": "closed_form"}, "classification.gan: nothing is trained"),
        ({"gan_critic": "wasserstein"}, "gan_critic: "),
    ],
)
def test_what_does_not_go_together_is_refused(lines, tmp_path, own, says):
    with pytest.raises(SettingsError, match=says):
        fit_of(lines, tmp_path / "run", own)
