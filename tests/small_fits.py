"""Trainings of a small encoder, step by step."""

import pytest
import torch
from conftest import SMALL

from nlpkit.inference.devices import accelerator_for
from nlpkit.training.loop import Step
from nlpkit.training.plan import Plan
from nlpkit.training.resume import open_fit


def fit_of(lines, out, *calls, encoder=(), **train):
    """A training of `ner` with some techniques, in `out`: new, or the one there continued."""
    values = {"epochs": 9, "batch_size": 12, "precision": "fp32", "techniques": list(calls)}
    values |= {"evaluate_every": 100.0, **train}
    sections = {"train": values, "encoder": {**SMALL, **dict(encoder)}}
    plan = Plan("ner", (str(lines),), out, encoder="dgcnn", values=(sections,), device="cpu")
    return open_fit(plan, accelerator_for("cpu", "fp32"))


def steps_of(fit, steps):
    """The losses of some steps, and the weights after them."""
    losses = []
    for event in fit.events():
        assert isinstance(event, Step)
        losses.append(event.loss)
        if event.step == steps:
            break
    return losses, {name: tensor.clone() for name, tensor in fit.run.model.state_dict().items()}


def assert_same(one, other, atol=0.0):
    """The same losses and weights, as `steps_of` gives them."""
    assert one[0] == pytest.approx(other[0], abs=atol)
    for name, tensor in one[1].items():
        torch.testing.assert_close(tensor, other[1][name], atol=atol, rtol=0, msg=name)
