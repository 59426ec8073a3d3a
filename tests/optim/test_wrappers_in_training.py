"""Wrappers in the trainer: checkpoints hold what they remember, and they bear with the rest."""

import json

import pytest
import torch
from conftest import DRY, SMALL_FLAGS, nlpkit, write_lines
from small_fits import assert_same, fit_of, steps_of

from nlpkit import samples
from nlpkit.encoders.tensor_file import load_tensors
from nlpkit.training.checkpoints import write_state
from nlpkit.training.loop import Step

GENTLE = ["lookahead(k=2, alpha=0.4)", "lazy_embeddings", "exponentiated_gradient(gamma=0.1)"]
SETTINGS = {
    "muon": {"optimizer": "muon", "wrappers": [*GENTLE, "normalized_gradients(power=0.5)"]},
    "adamw": {"optimizer": "adamw", "wrappers": ["lookahead(k=2)", "hidden_accumulation(steps=3)"]},
    "lamb": {"optimizer": "lamb", "wrappers": ["hidden_accumulation(steps=2)"]},
    "lion": {"optimizer": "lion", "wrappers": GENTLE},
    "sgdm": {"optimizer": "sgdm", "wrappers": ["hidden_accumulation(steps=3)"]},
}
NOTHING = ["lookahead(alpha=1)", "normalized_gradients(power=0)", "exponentiated_gradient(gamma=0)"]


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    records = list(samples.records("ner", 40, seed=2))
    return write_lines(tmp_path_factory.mktemp("lines") / "data.jsonl", records)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_resumed_training_is_the_same_bit_for_bit(lines, tmp_path, name):
    settings = {"average": 0.9, "layer_decay": 0.8, "rates": ["characters=0.5"], **SETTINGS[name]}
    whole = fit_of(lines, tmp_path / "whole", **settings)
    wanted = steps_of(whole, 8)
    fit = fit_of(lines, tmp_path / "cut", **settings)
    for event in fit.events():
        assert isinstance(event, Step)
        if event.step == 4:
            break
    write_state(fit.state, tmp_path / "cut")
    resumed = fit_of(lines, tmp_path / "cut", **settings)
    assert resumed.state.step == 4
    losses, weights = steps_of(resumed, 8)
    assert_same((wanted[0][4:], wanted[1]), (losses, weights))
    for one, other in zip(whole.state.wrapped.places, resumed.state.wrapped.places, strict=True):
        assert one.memory.keys() == other.memory.keys()
        for key, tensor in one.memory.items():
            assert torch.equal(tensor, other.memory[key]), key
    for key, tensor in whole.state.average.average.items():
        assert torch.equal(tensor, resumed.state.average.average[key]), key


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_wrappers_of_strength_0_change_no_bit(lines, tmp_path, optimizer):
    settings = {"optimizer": optimizer, "average": 0.9}
    plain = steps_of(fit_of(lines, tmp_path / "plain", **settings), 6)
    ways = [NOTHING]
    if optimizer == "adamw":
        ways.append(["lookahead(alpha=1)", "hidden_accumulation(steps=1)"])
    for number, calls in enumerate(ways):
        wrapped = fit_of(lines, tmp_path / f"{number}", **settings, wrappers=calls)
        assert_same(plain, steps_of(wrapped, 6))


def test_two_processes_do_what_one_does(lines, tmp_path):
    found = []
    calls = ["lookahead(k=2)", "lazy_embeddings", "normalized_gradients(power=0.5)"]
    for processes in (1, 2):
        out = tmp_path / str(processes)
        arguments = ["train", "ner", f"--data={lines}", "--epochs=2", "--batch-size=12"]
        arguments += ["--device=cpu", f"--processes={processes}", f"--out={out}", *SMALL_FLAGS]
        arguments += [f"--set=encoder.{name}=0.0" for name in DRY]
        arguments += ["--set=train.precision=fp32", "--set=train.optimizer=sgdm"]
        arguments += ["--set=train.evaluate_every=2", "--set=train.learning_rate=0.1"]
        nlpkit(*arguments, f"--set=train.wrappers={json.dumps(calls)}")
        found.append(load_tensors(out / "model.safetensors")[0])
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], rtol=0, atol=1e-4, msg=name)


def test_a_dry_run_counts_what_wrappers_hold(lines, tmp_path):
    fit = fit_of(lines, tmp_path / "run", wrappers=["lookahead"])
    fit.rehearse()
    (place,) = fit.state.wrapped.places
    held = sum(tensor.numel() for tensor in place.memory.values())
    assert held > sum(parameter.numel() for parameter in fit.run.model.parameters())
