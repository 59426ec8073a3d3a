"""A loss that couples examples: the gradient of a step is that of the whole, however it is cut,
with dropout, and over processes."""

import pytest
import safetensors.torch
import torch
from conftest import nlpkit, write_lines

from nlpkit import samples
from nlpkit.errors import SettingsError
from nlpkit.inference.devices import accelerator_for
from nlpkit.task import CoupledModel
from nlpkit.training import gradient_cache
from nlpkit.training.plan import Plan
from nlpkit.training.resume import open_fit
from nlpkit.training.step import TrainingStep

BATCH = 512
SMALL = {"start": "random", "character_size": 12, "gru_size": 8}
STILL = {"dropout": 0.0, "embedding_dropout": 0.0}
PAIRS = [
    {"text_a": f"问题{a}的答案", "text_b": f"答案是{b}吗", "label": (a * b) % 5 / 2}
    for a in range(32)
    for b in range(16)
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Loss -> a file of lines that it learns from."""
    folder = tmp_path_factory.mktemp("data")
    groups = list(samples.records("similarity", BATCH, seed=1))
    return {
        "cosent": write_lines(folder / "pairs.jsonl", PAIRS),
        "contrastive": write_lines(folder / "groups.jsonl", groups),
    }


def fit_of(data, loss, out, encoder=(), **train):
    """A training in float64."""
    values = {
        "train": {"batch_size": BATCH, "precision": "fp32", "epochs": 1, "seed": 7, **train},
        "encoder": {**SMALL, **dict(encoder)},
        "similarity": {"loss": loss},
    }
    plan = Plan(
        task="similarity",
        data=(str(data[loss]),),
        dev=(str(data[loss]),),
        out=out,
        encoder="gru",
        values=(values,),
        device="cpu",
    )
    fit = open_fit(plan, accelerator_for("cpu", "fp32"))
    fit.state.model.double().train()
    return fit


def backward(fit):
    """(losses and examples of the first step, its gradients by name)."""
    fit.state.optimizer.zero_grad()
    torch.manual_seed(5)
    sums = TrainingStep(fit.state).backward(lambda: fit.micro_batches(0))
    named = fit.state.model.named_parameters()
    return sums, {name: p.grad.clone() for name, p in named if p.grad is not None}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    assert scale > 1e-3
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) <= 1e-6 * scale, name


@pytest.mark.parametrize("loss", ["cosent", "contrastive"])
def test_512_in_pieces_of_16_are_512_whole(loss, data, tmp_path):
    whole = fit_of(data, loss, tmp_path / "whole", STILL, max_tokens=10**6)
    cut = fit_of(data, loss, tmp_path / "cut", STILL, accumulate=BATCH // 16)
    assert isinstance(cut.state.model, CoupledModel)
    (batch,) = whole.micro_batches(0)
    assert len(batch.texts) == BATCH
    assert [len(piece.texts) for piece in cut.micro_batches(0)] == [16] * (BATCH // 16)
    sums, gradients = backward(whole)
    cut_sums, cut_gradients = backward(cut)
    torch.testing.assert_close(cut_sums, sums, rtol=1e-9, atol=0)
    assert sums[1] == BATCH
    assert_close(cut_gradients, gradients)


@pytest.mark.parametrize("loss", ["cosent", "contrastive"])
def test_dropout_draws_the_same_twice(loss, data, tmp_path, monkeypatch):
    """Against the graph of all pieces, kept whole, with what dropout draws piece by piece."""
    fit = fit_of(data, loss, tmp_path / "run", {"dropout": 0.3}, accumulate=BATCH // 16)
    model = fit.state.model
    torch.manual_seed(5)
    pieces = list(fit.micro_batches(0))
    vectors = torch.cat([model.example_vectors(piece) for piece in pieces])
    numbers = torch.cat([model.example_numbers(piece) for piece in pieces])
    losses = model.coupled_loss(vectors, numbers)
    losses.sum().backward()
    after = torch.rand(3)
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    sums, found = backward(fit)
    assert torch.rand(3).equal(after)
    torch.testing.assert_close(sums[0], losses.sum(), rtol=1e-9, atol=0)
    assert_close(found, expected)
    monkeypatch.setattr(gradient_cache, "set_random_states", lambda device, states: None)
    _, without = backward(fit)
    with pytest.raises(AssertionError):
        assert_close(without, expected)


def test_a_step_is_cut_by_tokens_as_any_other(data, tmp_path):
    fit = fit_of(data, "cosent", tmp_path / "run")
    lengths = [sum(len(text) for text in fit.examples[i].texts) for i in fit.batches[0]]
    assert len(list(fit.micro_batches(0))) >= sum(lengths) / 2048


def test_what_changes_the_loss_of_a_piece_is_refused(data, tmp_path, monkeypatch):
    class Technique:
        def objective(self, step, inner, batch):
            return inner(batch)

    fit = fit_of(data, "cosent", tmp_path / "run")
    monkeypatch.setattr("nlpkit.training.techniques.parse", lambda calls: [Technique()])
    with pytest.raises(SettingsError, match="this task's loss is of a whole step"):
        TrainingStep(fit.state)


@pytest.mark.parametrize("loss", ["cosent", "contrastive"])
def test_two_processes_equal_one(loss, data, tmp_path):
    """The last step has an odd number of examples; one process's share of it is larger."""
    flags = ["--encoder=gru", "--epochs=1", "--batch-size=37", "--device=cpu", "--accumulate=3"]
    flags += [f"--set=encoder.{key}={value}" for key, value in {**SMALL, **STILL}.items()]
    flags += [f"--set=similarity.loss={loss}", "--set=train.precision=fp32"]
    for processes in (1, 2):
        out = ("--out", tmp_path / str(processes), "--processes", processes)
        nlpkit("train", "similarity", "--data", data[loss], "--dev", data[loss], *flags, *out)
    one, two = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in "12")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-6, rtol=0)
