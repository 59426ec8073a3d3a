"""What a model draws for an example in training is the example's own: a step does not depend on how
its batch is cut."""

import pytest
import torch
from conftest import DRY, SMALL, write_lines

from nlpkit import samples
from nlpkit.inference.devices import accelerator_for
from nlpkit.training.plan import Plan
from nlpkit.training.resume import open_fit
from nlpkit.training.step import TrainingStep


def gradients(task, data, out, sections, accumulate):
    """(loss, gradient by name) of the first step."""
    train = {"epochs": 9, "batch_size": 12, "precision": "fp32", "accumulate": accumulate}
    values = ({"train": train, **sections},)
    encoder = "dgcnn" if task == "classification" else "tiny"
    plan = Plan(task, (str(data),), out, encoder=encoder, values=values, device="cpu")
    fit = open_fit(plan, accelerator_for("cpu", "fp32"))
    torch.manual_seed(3)
    for parameter in fit.run.model.parameters():
        if not parameter.any():  # at 0 some would let nothing drawn through
            torch.nn.init.normal_(parameter, std=0.1)
    step = TrainingStep(fit.state)
    torch.manual_seed(accumulate)  # nothing is drawn from it
    total = step.combine(step.backward(lambda: fit.micro_batches(0)))
    named = fit.run.model.named_parameters()
    return total.loss, {name: p.grad.clone() for name, p in named if p.grad is not None}


@pytest.mark.parametrize(
    ("task", "sections", "drawn_for"),
    [
        (
            "classification",
            {"classification": {"vib": 0.1, "dropout": 0.0}, "encoder": {**SMALL, **DRY}},
            "bottleneck.posterior.weight",
        ),
        (
            "cln",
            {"cln": {"latent": 4, "max_length": 16}, "encoder": {"dropout": 0.0}},
            "latent.posterior.weight",
        ),
    ],
)
def test_a_step_does_not_depend_on_how_its_batch_is_cut(tmp_path, task, sections, drawn_for):
    data = write_lines(tmp_path / "data.jsonl", list(samples.records(task, 40, seed=2)))
    loss, whole = gradients(task, data, tmp_path / "whole", sections, 1)
    other_loss, cut = gradients(task, data, tmp_path / "cut", sections, 4)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, atol=2e-4, rtol=1e-3, msg=name)
    assert float(whole[drawn_for].norm()) > 1e-3
