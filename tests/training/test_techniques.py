"""The four parts of a step, and the techniques that wrap them: none of them changes anything at
strength 0, whatever way a batch is cut."""

import dataclasses
import json
import sys
from datetime import timedelta

import pytest
import torch
from conftest import DRY, SMALL, SMALL_FLAGS, nlpkit, write_lines
from small_fits import assert_same, fit_of, steps_of

from nlpkit import samples
from nlpkit.config import build
from nlpkit.errors import SettingsError
from nlpkit.inference.devices import accelerator_for
from nlpkit.training import techniques
from nlpkit.training.fit import refuse_cuts
from nlpkit.training.plan import Plan
from nlpkit.training.resume import open_fit
from nlpkit.training.settings import TrainConfig
from nlpkit.training.step import TrainingStep

NOTHING = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Technique:
    def {part}(self, step, inner, *arguments):
        return inner(*arguments)
"""
COUNTS = """
from dataclasses import dataclass
import torch

@dataclass(frozen=True)
class Technique:
    by: int = 1

    def update(self, step, inner):
        inner()
        before = step.state.memory.get("counts", torch.zeros(()))
        step.state.memory["counts"] = before + self.by
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A folder of techniques beside those that exist."""
    folder = tmp_path / "techniques"
    folder.mkdir()
    for part in techniques.PARTS:
        for name in ("no", "again_no"):
            (folder / f"{name}_{part}.py").write_text(NOTHING.format(part=part))
    for name in ("counts", "counts_too"):
        (folder / f"{name}.py").write_text(COUNTS)
    monkeypatch.setattr(techniques, "__path__", [*techniques.__path__, str(folder)])
    yield folder
    for path in folder.iterdir():
        sys.modules.pop(f"nlpkit.training.techniques.{path.stem}", None)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    records = list(samples.records("ner", 60, seed=2))
    return write_lines(tmp_path_factory.mktemp("lines") / "data.jsonl", records)


ZERO = [
    "flooding(level=0)",
    "fgm(epsilon=0)",
    "pgd(epsilon=0)",
    "embedding_gradient_penalty(weight=0)",
    "parameter_gradient_penalty(weight=0)",
    "vat(weight=0)",
    "rdrop(weight=0)",
    "two_rate_flooding(ascent=0)",
    "spectral_norm(weight=0)",
    "spectral_bound(bound=0)",
    "spectral_reparametrisation(norm=0)",
]
TOGETHER = [
    "flooding(level=1e6)",
    "embedding_gradient_penalty(weight=0.1)",
    "parameter_gradient_penalty(weight=0.01)",
    "vat(epsilon=1.0, weight=0.1)",
    "two_rate_flooding(descent=0.003, ascent=0.002)",
    "spectral_norm(weight=0.1)",
    "spectral_bound(bound=0.5)",
    "spectral_reparametrisation(norm=0.4)",
]


def test_techniques_of_strength_0_change_no_bit(lines, tmp_path, made):
    nothing = [f"no_{part}" for part in techniques.PARTS]
    for pieces in (1, 3):
        plain = steps_of(fit_of(lines, tmp_path / f"plain{pieces}", accumulate=pieces), 20)
        calls = [*nothing, *ZERO, *[f"again_{call}" for call in nothing]]
        wrapped = fit_of(lines, tmp_path / f"wrapped{pieces}", *calls, accumulate=pieces)
        assert len({plain[0][0], plain[0][-1]}) == 2
        assert_same(plain, steps_of(wrapped, 20))


def test_every_technique_is_tried_at_strength_0():
    assert sorted(call.partition("(")[0] for call in ZERO) == techniques.names()


def test_they_change_no_bit_with_two_processes_either(lines, tmp_path, made):
    arguments = ["train", "ner", f"--data={lines}", "--epochs=4", "--batch-size=12", "--device=cpu"]
    arguments += ["--set=train.precision=fp32", *SMALL_FLAGS, "--processes=2"]
    calls = [f"no_{part}" for part in techniques.PARTS] + ZERO
    see = f"from nlpkit.training import techniques\ntechniques.__path__.append({str(made)!r})\n"
    found = []
    for name, wanted in (("plain", []), ("wrapped", calls)):
        out = tmp_path / name
        settings = [f"--set=train.techniques={json.dumps(wanted)}", f"--out={out}"]
        nlpkit(*arguments, *settings, env={"BEFORE": see})
        found.append((out / "model.safetensors").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("calls", "steps"), [(["fgm(epsilon=1.0)"], 10), (["flooding(level=1e6)"], 10), (TOGETHER, 1)]
)
def test_techniques_are_exact_for_any_split_and_do_something(lines, tmp_path, calls, steps):
    torch.set_default_dtype(torch.float64)
    try:
        plain = steps_of(fit_of(lines, tmp_path / "plain", encoder=DRY), steps)
        whole = steps_of(fit_of(lines, tmp_path / "whole", *calls, encoder=DRY), steps)
        cut = steps_of(fit_of(lines, tmp_path / "cut", *calls, encoder=DRY, accumulate=4), steps)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same(whole, cut, atol=1e-6)
    assert any(not torch.allclose(plain[1][name], whole[1][name], atol=1e-4) for name in plain[1])


def gradients_of(fit):
    """(loss, gradient of the first step by name), before the optimizer takes it."""
    step = TrainingStep(fit.state)
    total = step.combine(step.backward(lambda: fit.micro_batches(0)))
    named = fit.run.model.named_parameters()
    return total.loss, {name: p.grad.clone() for name, p in named if p.grad is not None}


def test_flooding_turns_the_gradient_around_below_the_level(lines, tmp_path):
    loss, gradient = gradients_of(fit_of(lines, tmp_path / "plain", encoder=DRY))
    for level, sign in ((loss - 0.01, 1), (loss + 0.01, -1)):
        fit = fit_of(lines, tmp_path / f"{sign}", f"flooding(level={level})", encoder=DRY)
        again, turned = gradients_of(fit)
        assert again == loss
        for name, tensor in gradient.items():
            assert torch.equal(turned[name], sign * tensor), name


def test_fgm_takes_the_gradient_at_the_moved_table_and_puts_it_back(lines, tmp_path):
    fit = fit_of(lines, tmp_path / "plain", encoder=DRY)
    table = fit.run.model.encoder.characters.weight
    _, gradient = gradients_of(fit)
    g = gradient["encoder.characters.weight"]
    with torch.no_grad():
        table.add_(0.5 * g / g.norm())
    fit.state.optimizer.zero_grad()
    loss, wanted = gradients_of(fit)
    moved = fit_of(lines, tmp_path / "fgm", "fgm(epsilon=0.5)", encoder=DRY)
    before = moved.run.model.encoder.characters.weight.clone()
    found_loss, found = gradients_of(moved)
    assert found_loss == pytest.approx(loss, abs=1e-6)
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-4)
    assert torch.equal(moved.run.model.encoder.characters.weight, before)


def test_later_ones_wrap_earlier_ones_and_what_they_remember_is_resumed(lines, tmp_path, made):
    calls = ["counts(by=2)", "counts_too(by = 3)"]
    fit = fit_of(lines, tmp_path / "run", *calls)
    for event in fit.events():
        if event.step == 4:
            fit.state.interrupted = True
    assert fit.state.memory["counts"] == 25
    resumed = fit_of(lines, tmp_path / "run", *calls)
    assert resumed.state.memory["counts"] == 25
    steps_of(resumed, 6)
    assert resumed.state.memory["counts"] == 30
    with pytest.raises(SettingsError, match="train.techniques"):
        fit_of(lines, tmp_path / "run", *reversed(calls))


def test_all_together_go_on_bit_for_bit_after_an_interruption(lines, tmp_path):
    calls = ["rdrop(weight=0.5)", "pgd(steps=1)", *TOGETHER[3:]]
    whole = steps_of(fit_of(lines, tmp_path / "whole", *calls), 3)
    cut = fit_of(lines, tmp_path / "cut", *calls)
    for event in cut.events():
        if event.step == 1:
            cut.state.interrupted = True
    resumed = fit_of(lines, tmp_path / "cut", *calls)
    assert resumed.state.step == 2
    losses, weights = steps_of(resumed, 3)
    assert losses == whole[0][2:]
    for name, tensor in whole[1].items():
        assert torch.equal(weights[name], tensor), name


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("two_rate_flooding(descent=0.1, ascent=0.1)", "ascent: expected less than descent"),
        ("floodin(level=1)", 'train.techniques: .*"floodin"; did you mean "flooding"'),
        ("flooding(levle=1)", 'unknown setting .*flooding.levle"; did you mean "level"'),
        ("flooding(level=-1)", "flooding.level: expected at least 0, got -1"),
        ("flooding(level=nan)", "flooding.level: expected a finite number"),
        ("vat(xi=0)", "vat.xi: expected a number above 0, got 0"),
        ("flooding(level)", "expected flooding.argument=value"),
        ("flooding(level=1", "expected name.argument=value"),
        ("", "expected name.argument=value"),
    ],
)
def test_an_unknown_or_broken_technique_is_named(call, says):
    with pytest.raises(SettingsError, match=says):
        build(TrainConfig, {"techniques": [call]}, "train")


def test_every_technique_is_a_dataclass_that_says_what_its_arguments_are():
    for technique in techniques.parse(techniques.names()):
        assert techniques.parts_of(technique)
        assert dataclasses.fields(technique)
        assert type(technique).__doc__


def test_a_technique_that_stands_twice_is_refused():
    calls = ["fgm(epsilon=0.5)", "rdrop", "fgm(epsilon=1.0)"]
    with pytest.raises(SettingsError, match='train.techniques: "fgm" stands twice') as caught:
        build(TrainConfig, {"techniques": calls}, "train")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("task", "call", "says"),
    [
        ("casrel", "rdrop", "rdrop: it compares distributions"),
        ("similarity", "parameter_gradient_penalty", "this task's loss is of a whole step"),
    ],
)
def test_a_technique_that_does_not_go_with_the_task_is_refused_before_there_is_a_run(
    tmp_path, task, call, says
):
    data = write_lines(tmp_path / "data.jsonl", samples.records(task, 60, seed=2))
    sections = {"train": {"precision": "fp32", "techniques": [call]}, "encoder": SMALL}
    if task == "similarity":
        sections["similarity"] = {"loss": "contrastive"}
    out = tmp_path / "run"
    plan = Plan(task, (str(data),), out, encoder="dgcnn", values=(sections,), device="cpu")
    with pytest.raises(SettingsError, match=says):
        open_fit(plan, accelerator_for("cpu", "fp32"))
    assert not out.exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"accumulate": 2}, "train.accumulate: .* must stay whole: expected 1, got 2"),
        ({"max_tokens": 50}, "train.max_tokens: .*expected none or at least [0-9]+, got 50"),
        ({"max_tokens": 10**6, "batch_by": "tokens"}, "train.max_tokens: .*expected none"),
    ],
)
def test_a_batch_of_coupled_examples_is_never_cut(lines, tmp_path, monkeypatch, settings, says):
    monkeypatch.setattr("nlpkit.tasks.ner.Task.couples_examples", True, raising=False)
    with pytest.raises(SettingsError, match=says):
        fit_of(lines, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_batch_of_coupled_examples_stays_whole(lines, tmp_path, monkeypatch):
    monkeypatch.setattr("nlpkit.tasks.ner.Task.couples_examples", True, raising=False)
    fit = fit_of(lines, tmp_path / "run", batch_size=40)
    lengths = [len(fit.examples[index]) for index in fit.batches[0]]
    monkeypatch.setattr("nlpkit.training.fit.cut", None)  # nothing cuts it, by whatever default
    assert [len(batch.encodings) for batch in fit.micro_batches(0)] == [len(lengths)]
    bound = 40 * max(len(example) for example in fit.examples)
    with pytest.raises(SettingsError, match="train.max_tokens"):
        fit_of(lines, tmp_path / "less", batch_size=40, max_tokens=bound - 1)
    fit_of(lines, tmp_path / "enough", batch_size=40, max_tokens=bound)


def test_coupled_examples_are_not_shared_among_processes(lines, tmp_path, monkeypatch):
    monkeypatch.setattr("nlpkit.tasks.ner.Task.couples_examples", True, raising=False)
    fit = fit_of(lines, tmp_path / "run")
    with pytest.raises(SettingsError, match="--processes: .*: expected 1, got 2"):
        refuse_cuts("ner", fit.config, fit.batches, processes=2)


class Counter(torch.nn.Module):
    """A module that wants to know how many examples it was trained on."""

    def __init__(self):
        super().__init__()
        self.counts = []

    def count_examples(self, examples):
        self.counts.append(examples)


class Twin:
    """An accelerator with another process that does the same."""

    def __init__(self, accelerator):
        self.accelerator = accelerator

    def __getattr__(self, name):
        return getattr(self.accelerator, name)

    def reduce(self, tensor, how):
        return 2 * tensor


def test_a_module_hears_how_many_examples_all_processes_took_in(lines, tmp_path):
    fit = fit_of(lines, tmp_path / "run", accumulate=3)
    fit.run.model.counter = Counter()
    fit.state.accelerator = Twin(fit.accelerator)
    step = TrainingStep(fit.state)
    assert step(lambda: fit.micro_batches(0)).examples == 24
    step(lambda: fit.micro_batches(1))
    assert fit.run.model.counter.counts == [24, 24]


def test_a_process_waits_for_a_long_evaluation_of_another(monkeypatch):
    class Met(Exception):  # noqa: N818 - it is none
        """The processes would meet now."""

    def meet(**options):
        raise Met(options["timeout"])

    monkeypatch.setattr("accelerate.PartialState", meet)
    with pytest.raises(Met) as met:
        accelerator_for("cpu", "fp32")
    assert met.value.args[0] >= timedelta(days=1)
