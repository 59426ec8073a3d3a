"""Several tasks in one training: exact gradients, exact resume, and runs that are like any other."""

import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from conftest import DRY, SMALL, SMALL_FLAGS, nlpkit, write_lines

from nlpkit import samples
from nlpkit.errors import DataError, SettingsError
from nlpkit.inference.devices import accelerator_for
from nlpkit.inference.predictor import Predictor
from nlpkit.jsonl import read_jsonl
from nlpkit.run import load
from nlpkit.tasks import ner
from nlpkit.training.checkpoints import CHECKPOINT
from nlpkit.training.loop import Evaluation
from nlpkit.training.multitask.plan import MultiPlan, kb_values
from nlpkit.training.plan import Plan
from nlpkit.training.resume import finished_summary, open_fit
from nlpkit.training.step import TrainingStep

TASKS = ("gplinker", "ner")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Lines of each task, of one more often than of the other."""
    folder = tmp_path_factory.mktemp("lines")
    for name, count in (("gplinker", 24), ("ner", 60), ("similarity", 24)):
        write_lines(folder / f"{name}.jsonl", samples.records(name, count, seed=2))
    return folder


def plan(files, out, *, names=TASKS, encoder=(), **train):
    given = tuple(f"{name}={files / name}.jsonl" for name in names)
    values = {"epochs": 2, "batch_size": 12, "precision": "fp32", "average": 0.9, **train}
    sections = {"train": values, "encoder": {**SMALL, **dict(encoder)}}
    common = {"encoder": "dgcnn", "values": (sections,), "device": "cpu"}
    return MultiPlan("+".join(names), given, out, given, **common)


def fit_of(the_plan):
    return open_fit(the_plan, accelerator_for("cpu", "fp32"))


def gradients_of(fit):
    """(loss, gradient of the first step by name)."""
    step = TrainingStep(fit.state)
    total = step.combine(step.backward(lambda: fit.micro_batches(0)))
    named = fit.state.model.named_parameters()
    return total.loss, {name: p.grad.clone() for name, p in named if p.grad is not None}


def by_hand(fit):
    """(mean losses, gradients of each by name) of the first step, each task's batch in one piece."""
    losses = []
    gradients = []
    named = dict(fit.state.model.named_parameters())
    for part in fit.parts:
        (batch,) = part.micro_batches(0)
        loss = part.run.model(batch).mean()
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        losses.append(loss.item())
        gradients.append({k: g for k, g in zip(named, found, strict=True) if g is not None})
    return losses, gradients


def shared_product(one, other):
    return sum(float((one[k] * other[k]).sum()) for k in one if k.startswith("encoder."))


def test_the_gradient_is_that_of_the_mean_losses_of_the_tasks_however_they_are_cut(files, tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        fit = fit_of(plan(files, tmp_path / "hand", encoder=DRY))
        losses, (one, other) = by_hand(fit)
        a, b, c = shared_product(one, one), shared_product(one, other), shared_product(other, other)
        part = min(1, max(0, (c - b) / (a - 2 * b + c)))  # of the first, in the shortest mixture
        pareto = ((2 * part, 2 * (1 - part)), (1, 1))
        scales = tuple(1 / loss for loss in losses)
        lengths = (a**-0.5, c**-0.5)
        weights = {"sum": ((1, 1), (1, 1)), "scale_free": (scales, scales)}
        weights |= {"normalised": (lengths, lengths), "pareto": pareto}
        for call, (of_encoder, of_heads) in weights.items():
            for pieces in (1, 3):
                out = tmp_path / f"{call}{pieces}"
                settings = {"encoder": DRY, "balance": call, "accumulate": pieces}
                loss, found = gradients_of(fit_of(plan(files, out, **settings)))
                assert loss == pytest.approx(sum(losses), abs=1e-6)
                assert found.keys() == one.keys() | other.keys()
                for name, gradient in found.items():
                    factors = of_encoder if name.startswith("encoder.") else of_heads
                    pairs = zip(factors, (one, other), strict=True)
                    wanted = sum(factor * own[name] for factor, own in pairs if name in own)
                    torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-4, msg=name)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_dry_run_takes_the_step_with_the_longest_example_too(files, tmp_path):
    fit = fit_of(plan(files, tmp_path / "run", batch_size=8, batch_by="tokens"))
    for part in fit.parts:
        part.dev = part.dev[:0]
    batches = fit.parts[1].batches
    sizes = [
        sum(int(part.batches.lengths[part.batches[step]].sum()) for part in fit.parts)
        for step in range(fit.per_epoch)
    ]
    few = sizes.index(min(sizes))
    batches.lengths[batches[few][0]] = max(part.batches.lengths.max() for part in fit.parts) + 1
    taken = []
    micro_batches = fit.micro_batches

    def noting(step):
        taken.append(step)
        return micro_batches(step)

    fit.micro_batches = noting
    fit.rehearse()
    assert few in taken
    assert sizes.index(max(sizes)) in taken


def test_epochs_end_together_and_every_step_has_every_task(files, tmp_path):
    fit = fit_of(plan(files, tmp_path / "run", batch_size=4))
    assert fit.per_epoch == 84 // 4
    assert fit.state.steps == 2 * 84 // 4
    sizes = [len(part.batches[0]) for part in fit.parts]
    assert sizes == [2, 3]  # 24 and 60 lines in 21 steps
    for step in range(fit.state.steps):
        assert [batch.task for batch in fit.micro_batches(step)] == list(TASKS)
    few = fit_of(plan(files, tmp_path / "few", batch_size=2))
    assert few.per_epoch == 42  # more than one of the tasks has lines
    assert {len(few.parts[0].batches[step]) for step in range(few.state.steps)} == {1}


@pytest.fixture(scope="module")
def straight(files, tmp_path_factory):
    """The folder of a training that was not stopped."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("straight") / "run"
    fit = fit_of(plan(files, folder, balance="initial(steps=3)", learning_rate=1e-2))
    assert [e.is_best for e in fit.events() if isinstance(e, Evaluation)][0]
    return folder


@pytest.mark.parametrize("stop", [2, 7])
def test_a_resumed_training_equals_a_straight_one_bit_for_bit(files, tmp_path, straight, stop):
    again = plan(files, tmp_path / "run", balance="initial(steps=3)", learning_rate=1e-2)
    stopped = fit_of(again)
    for event in stopped.events():
        if event.step == stop:
            stopped.state.interrupted = True
    assert (tmp_path / "run" / CHECKPOINT).exists()
    for changed, says in [
        (replace(again, task="ner+gplinker"), "together is now"),
        (plan(files, tmp_path / "run", balance="sum", learning_rate=1e-2), "train.balance is now"),
        (
            plan(files, tmp_path / "run", names=("ner", "similarity")),
            "holds something that is no run of",
        ),
    ]:
        with pytest.raises(SettingsError, match=says):
            fit_of(changed)
    resumed = fit_of(again)
    assert resumed.state.step == stop + 1
    list(resumed.events())
    for name in TASKS:
        for file in ("model.safetensors", "metrics.jsonl"):
            found = (tmp_path / "run" / name / file).read_bytes()
            assert found == (straight / name / file).read_bytes(), (name, file)
    assert finished_summary(again, accelerator_for("cpu", "fp32")) == resumed.summary()
    with pytest.raises(SettingsError, match="holds a finished run"):
        fit_of(again)


def test_each_task_has_a_run_of_its_own(files, straight):
    assert sorted(path.name for path in straight.iterdir()) == sorted(TASKS)
    encoders = []
    means = set()
    values = []
    for name in TASKS:
        run = load(straight / name)
        records = [record for _, record in read_jsonl(files / f"{name}.jsonl")]
        outcomes = Predictor(run.task, run.model)(list(enumerate(records[:5], 1)))
        assert all(outcome.prediction is not None for outcome in outcomes)
        encoders.append(run.model.encoder.state_dict())
        result = run.config["result"]
        assert result["chosen_by"] == "the mean of f1 of gplinker and f1 of ner"
        lines = [json.loads(line) for line in (straight / name / "metrics.jsonl").open()]
        assert result["metrics"] in lines
        assert result["monitor"] in lines[0]
        assert run.config["together"] == list(TASKS)
        assert "together with" in (straight / name / "README.md").read_text()
        means.add(result["mean"])
        values.append(result["value"])
    assert means == {round(sum(values) / 2, 6)}
    for key, tensor in encoders[0].items():
        assert torch.equal(tensor, encoders[1][key]), key
    with pytest.raises(SettingsError, match="not a run directory") as refused:
        load(straight)
    assert refused.value.hint == "runs in it: gplinker, ner"


def test_two_processes_equal_one_and_the_command_says_where_the_runs_are(files, tmp_path):
    command = ["train", "gplinker+ner", "--epochs=1", "--batch-size=12", "--device=cpu"]
    command += [
        f"--{option}={name}={files / name}.jsonl" for name in TASKS for option in ("data", "dev")
    ]
    command += [*SMALL_FLAGS, *(f"--set=encoder.{key}={value}" for key, value in DRY.items())]
    command += ["--set=train.precision=fp32", "--learning-rate=1e-4", "--set=train.balance=pareto"]
    weights = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        done = nlpkit(*command, "--out", out, "--processes", processes)
        said = json.loads(done.stdout)
        assert said["run"] == str(out)
        assert said["monitor"] == "mean"
        assert said["runs"]["ner"]["run"] == str(out / "ner")
        weights.append(safetensors.torch.load_file(out / "ner" / "model.safetensors"))
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-5, rtol=0, msg=name)
    shown = nlpkit(*command, "--out", tmp_path / "none", "--dry-run").stderr.decode()
    assert "ner: 60 lines" in shown
    assert not (tmp_path / "none").exists()
    refused = nlpkit(*command, "--seeds", 2, "--out", tmp_path / "none", check=False)
    assert refused.returncode == 2
    assert b"--seeds: of one task alone" in refused.stderr


def test_techniques_wrap_the_step_of_several_tasks_exactly(files, tmp_path):
    torch.set_default_dtype(torch.float64)
    calls = ["fgm(epsilon=0.5)", "parameter_gradient_penalty(weight=0.1)"]
    found = []
    try:
        for pieces in (1, 3):
            settings = {"encoder": DRY, "balance": "normalised", "accumulate": pieces}
            out = tmp_path / str(pieces)
            found.append(gradients_of(fit_of(plan(files, out, techniques=calls, **settings))))
    finally:
        torch.set_default_dtype(torch.float32)
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("task", "data", "says"),
    [
        ("gplinker+nre", ["gplinker=a"], 'unknown task "nre"; did you mean "ner"'),
        ("gplinker+", ["gplinker=a"], 'unknown task ""'),
        ("ner+ner", ["ner=a"], "ner is named twice"),
        ("gplinker+ner", ["a.jsonl"], 'expected gplinker=FILE or ner=FILE, got "a.jsonl"'),
        ("gplinker+ner", ["gplinker=a", "nre=b"], '--data: .*"nre=b"; did you mean "ner"'),
        ("gplinker+ner", ["gplinker=a"], "--data: none for ner"),
        ("gplinker+ner", ["gplinker=a", "ner="], '--data: .*got "ner="'),
    ],
)
def test_what_is_wrong_with_a_plan_is_said(task, data, says, tmp_path):
    with pytest.raises(SettingsError, match=says):
        MultiPlan(task, tuple(data), tmp_path / "run").settings()


@pytest.mark.parametrize("option", ["data", "dev"])
def test_a_task_that_trains_alone_names_its_files_without_it(option, tmp_path, monkeypatch):
    files = {"data": ("a.jsonl",), "dev": ("b.jsonl",), option: ("gplinker=a.jsonl",)}
    says = f'--{option}: gplinker trains alone: expected a file, got "gplinker=a.jsonl"'
    with pytest.raises(SettingsError, match=says) as caught:
        Plan("gplinker", out=tmp_path / "run", **files).settings()
    assert caught.value.hint.startswith(f"--{option} a.jsonl; ")
    assert "gplinker+ner" in caught.value.hint
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gplinker=a.jsonl").touch()
    Plan("gplinker", out=tmp_path / "run", **files).settings()  # a file may have that name


def test_each_task_has_its_files_settings_and_knowledge_base(tmp_path):
    values = ({"ner": {"head_size": 8}, "train": {"epochs": 3}},)
    files = ("entity-linking=a", "ner=b", "ner=c=d")
    linking, ner = MultiPlan("entity-linking+ner", files, tmp_path, values=values).runs
    assert (linking.task, linking.data, linking.out) == (
        "entity_linking",
        ("a",),
        tmp_path / "entity_linking",
    )
    assert ner.data == ("b", "c=d")
    assert ner.settings()["ner"].head_size == 8
    assert linking.settings()["train"].epochs == 3
    assert kb_values("entity_linking+ner", "entity_linking=k")["entity_linking"]["kb"] == "k"
    with pytest.raises(SettingsError, match="task ner has no knowledge base"):
        kb_values("entity_linking+ner", "ner=k")
    with pytest.raises(SettingsError, match="--kb: expected entity_linking=FILE"):
        kb_values("entity_linking+ner", "k")


def test_a_task_that_cannot_share_must_train_alone(files, tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="similarity: its loss couples .*: it must train alone"):
        fit_of(plan(files, tmp_path / "run", names=("ner", "similarity")))
    for call in ("rdrop", "vat"):
        with pytest.raises(
            SettingsError, match=f"{call}: .*: expected one task, got gplinker, ner"
        ):
            fit_of(plan(files, tmp_path / "run", techniques=[call]))
    build_model = ner.Task.build_model

    def changed(self, encoder):
        encoder.more = torch.nn.Linear(1, 1)
        return build_model(self, encoder)

    monkeypatch.setattr(ner.Task, "build_model", changed)
    with pytest.raises(SettingsError, match="ner: changes its encoder: it must train alone"):
        fit_of(plan(files, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_error_of_the_data_says_of_which_task(files, tmp_path):
    swapped = plan(files, tmp_path / "swapped")
    given = (f"gplinker={files / 'ner'}.jsonl", f"ner={files / 'gplinker'}.jsonl")
    with pytest.raises(DataError) as caught:
        fit_of(replace(swapped, data=given, dev=()))
    assert caught.value.message.startswith("gplinker: ")
