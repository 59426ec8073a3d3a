"""The trainer: exact accumulation, exact resume, processes, kill -9, refusals, averages, groups and
schedules."""

import json
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from conftest import DRY, SMALL, SMALL_FLAGS, nlpkit, write_lines

from nlpkit import samples
from nlpkit.errors import SettingsError
from nlpkit.inference import precision
from nlpkit.inference.devices import accelerator_for
from nlpkit.training.checkpoints import CHECKPOINT
from nlpkit.training.loop import Evaluation
from nlpkit.training.plan import Plan
from nlpkit.training.resume import finished_summary, open_fit


def plan(data, out, encoder=(), **train):
    values = {"epochs": 2, "batch_size": 12, "precision": "fp32", "average": 0.9, **train}
    sections = {"train": values, "encoder": {**SMALL, **dict(encoder)}}
    return Plan("gplinker", (str(data),), out, encoder="dgcnn", values=(sections,), device="cpu")


@pytest.fixture
def double():
    """Weights and gradients in float64: Adam blows float32's rounding of tiny gradients up to the
    size of a step."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def fit_of(the_plan):
    return open_fit(the_plan, accelerator_for("cpu", "fp32"))


def train_steps(fit, steps=None):
    for event in fit.events():
        if steps and event.step >= steps and not isinstance(event, Evaluation):
            break
    return {name: tensor.clone() for name, tensor in fit.run.model.state_dict().items()}


def assert_same(a, b, atol):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(
            a[name], b[name], atol=atol, rtol=0, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.fixture(scope="module")
def ragged(tmp_path_factory):
    """Lines of very different lengths."""
    records = list(samples.records("gplinker", 130, seed=2))
    for record in records[::7]:
        record["text"] = record["text"] + "，此外再无消息" * 12
    return write_lines(tmp_path_factory.mktemp("ragged") / "data.jsonl", records)


def test_a_batch_is_cut_by_the_lengths_that_its_examples_were_made_to(ragged, tmp_path):
    fit = fit_of(plan(ragged, tmp_path / "run", max_tokens=300))
    as_they_are = [len(batch.encodings) for batch in fit.micro_batches(0)]
    shortest = min(fit.examples, key=len)
    fit.augment = lambda example, random: shortest
    made = [len(batch.encodings) for batch in fit.micro_batches(0)]
    assert sum(made) == sum(as_they_are) == 12
    assert len(made) == -(-12 // (300 // len(shortest))) < len(as_they_are)


@pytest.fixture(scope="module")
def in_one_piece(ragged, tmp_path_factory):
    """The weights of a training in float64 whose batches were not cut."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        the_plan = plan(ragged, tmp_path_factory.mktemp("whole") / "one", DRY, epochs=3)
        return train_steps(fit_of(the_plan), steps=20)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("pieces", [2, 4, 8])
def test_accumulation_is_exact_for_any_split(ragged, tmp_path, pieces, in_one_piece, double):
    cut = train_steps(
        fit_of(plan(ragged, tmp_path / "many", DRY, epochs=3, accumulate=pieces)), steps=20
    )
    assert_same(in_one_piece, cut, atol=1e-6)


def test_a_token_budget_changes_nothing_either(ragged, tmp_path, in_one_piece, double):
    cut = train_steps(
        fit_of(plan(ragged, tmp_path / "many", DRY, epochs=3, max_tokens=200)), steps=20
    )
    assert_same(in_one_piece, cut, atol=1e-6)


@pytest.fixture(scope="module")
def straight(ragged, tmp_path_factory):
    """(the folder of a training that was not stopped, its last weights)."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("straight") / "run"
    return folder, train_steps(fit_of(plan(ragged, folder)))


@pytest.mark.parametrize("stop", [3, 9, 14, 19])  # 10 and 20 are where it evaluates
def test_a_resumed_run_equals_a_straight_one_bit_for_bit(ragged, tmp_path, straight, stop):
    folder, expected = straight
    stopped = fit_of(plan(ragged, tmp_path / "stopped"))
    for event in stopped.events():
        if event.step == stop:
            stopped.state.interrupted = True
    assert (tmp_path / "stopped" / CHECKPOINT).exists()
    resumed = fit_of(plan(ragged, tmp_path / "stopped"))
    assert resumed.state.step == stop + 1
    assert_same(expected, train_steps(resumed), atol=0)
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (folder / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()


def test_what_the_last_checkpoint_implies_is_written_by_who_goes_on(
    ragged, tmp_path, straight, monkeypatch
):
    """A process dies behind its last checkpoint, before it has told of the last evaluation."""
    folder, expected = straight
    dying = fit_of(plan(ragged, tmp_path / "died"))

    def die_at_the_end(history):
        if len(history) == 2:
            raise MemoryError

    monkeypatch.setattr(dying.run, "save_history", die_at_the_end)
    with pytest.raises(MemoryError):
        train_steps(dying)
    resumed = fit_of(plan(ragged, tmp_path / "died"))
    assert_same(expected, train_steps(resumed), atol=0)
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (folder / name).read_bytes() == (tmp_path / "died" / name).read_bytes()


def test_two_processes_equal_one(ragged, tmp_path):
    flags = [
        *SMALL_FLAGS,
        *(f"--set=encoder.{k}={v}" for k, v in DRY.items()),
        "--set=train.precision=fp32",
    ]
    flags += [
        "--epochs=2",
        "--batch-size=12",
        "--device=cpu",
        "--learning-rate=1e-4",
        "--data",
        ragged,
    ]
    results = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        command = ["train", "gplinker", *flags, "--out", out, "--processes", processes]
        done = nlpkit(*command, fresh=processes == 2)  # each with hashes of its own seed
        assert len(done.stdout.splitlines()) == 1  # only one process speaks
        assert json.loads(done.stdout)["run"] == str(out)
        results.append(safetensors.torch.load_file(out / "model.safetensors"))
    assert_same(*results, atol=1e-5)


KILLER = """
import os, signal
import nlpkit.jsonl as jsonl
calls, when = [0], {when}
def dangerous(function):
    def wrapped(*arguments):
        calls[0] += 1
        if calls[0] == when:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return wrapped
jsonl.os.fsync, jsonl.os.replace = dangerous(os.fsync), dangerous(os.replace)
"""


def test_a_kill_while_saving_leaves_a_run_that_resumes(ragged, tmp_path):
    few = tmp_path / "few.jsonl"
    few.write_bytes(b"".join(ragged.read_bytes().splitlines(keepends=True)[:50]))
    arguments = [
        "train",
        "gplinker",
        "--data",
        str(few),
        "--epochs=2",
        "--batch-size=12",
        "--set=train.precision=fp32",  # auto may measure another one in another process
        *SMALL_FLAGS,
    ]
    nlpkit(*arguments, "--out", tmp_path / "straight", fresh=True)  # its hashes have another seed
    expected = (tmp_path / "straight" / "model.safetensors").read_bytes()
    for when in (
        5,
        8,
        11,
        17,
        23,
        26,
    ):  # while it writes the config, the model, checkpoints, the card, the end
        out = tmp_path / f"killed{when}"
        killed = nlpkit(
            *arguments, "--out", out, check=False, env={"BEFORE": KILLER.format(when=when)}
        )
        assert killed.returncode == -signal.SIGKILL, when
        nlpkit(*arguments, "--out", out)
        assert (out / "model.safetensors").read_bytes() == expected, when
        assert not list(out.glob("*.tmp")), when


def test_resume_is_refused_where_something_changed(ragged, tmp_path):
    fit = fit_of(plan(ragged, tmp_path / "run"))
    for event in fit.events():
        fit.state.interrupted = event.step == 2
    other = write_lines(tmp_path / "other.jsonl", samples.records("gplinker", 100, seed=5))
    for changed, what in [
        (plan(ragged, tmp_path / "run", epochs=3), "settings.train.epochs"),
        (plan(ragged, tmp_path / "run", {"dropout": 0.5}), "encoder.*dropout"),
        (replace(plan(other, tmp_path / "run")), "data.train"),
    ]:
        with pytest.raises(SettingsError, match=what):
            fit_of(changed)
    assert fit_of(plan(ragged, tmp_path / "run")).state.step > 2  # and nothing was lost


def test_a_finished_or_foreign_folder_is_not_overwritten(ragged, tmp_path):
    fit = fit_of(plan(ragged, tmp_path / "run", epochs=1))
    train_steps(fit)
    with pytest.raises(SettingsError, match="holds a finished run"):
        fit_of(plan(ragged, tmp_path / "run", epochs=1))
    accelerator = accelerator_for("cpu", "fp32")
    same = plan(ragged, tmp_path / "run", epochs=1)
    assert finished_summary(same, accelerator) == fit.summary()
    assert finished_summary(replace(same, force=True), accelerator) is None
    with pytest.raises(SettingsError, match="holds a finished run: settings.train.epochs is now 2"):
        finished_summary(plan(ragged, tmp_path / "run", epochs=2), accelerator)
    train_steps(fit_of(replace(plan(ragged, tmp_path / "run", epochs=1), force=True)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(SettingsError, match="no run"):
        fit_of(replace(plan(ragged, tmp_path / "mine"), force=True))
    assert (tmp_path / "mine" / "letter.txt").exists()


def test_patience_stops_early_and_the_best_model_is_kept(ragged, tmp_path):
    fit = fit_of(plan(ragged, tmp_path / "run", epochs=30, patience=2, learning_rate=1e-12))
    evaluations = [event for event in fit.events() if isinstance(event, Evaluation)]
    values = [event.value for event in evaluations]
    assert 3 <= len(values) < 30
    assert fit.summary()["value"] == max(values)
    for event in evaluations:
        assert ("f1_untuned_half" in event.metrics) == event.is_best
    assert 0 <= fit.run.config["result"]["metrics"]["f1_untuned_half"] <= 1


def test_interrupting_saves_once_and_exits_130(ragged, tmp_path):
    command = [
        sys.executable,
        "-m",
        "cli.main",
        "train",
        "gplinker",
        "--data",
        str(ragged),
        "--epochs=500",
    ]
    command += ["--out", str(tmp_path / "run"), *SMALL_FLAGS]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while b"epoch 1.00" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    process.wait(timeout=60)
    assert process.returncode == 130
    assert b"interrupted" in rest
    assert b"Traceback" not in rest
    assert (tmp_path / "run" / CHECKPOINT).exists()


def test_a_learning_rate_that_explodes_is_an_error(ragged, tmp_path):
    done = nlpkit(
        *("train", "gplinker", "--data", ragged, "--out", tmp_path / "run", *SMALL_FLAGS),
        *(
            "--set",
            "train.learning_rate=1e30",
            "--set",
            "train.clip_norm=0",
            "--set",
            "train.schedule=0:1 1:1",
        ),
        check=False,
    )
    assert done.returncode == 1
    assert b"the loss is" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_continued_run_keeps_the_precisions_that_were_measured(ragged, tmp_path, monkeypatch):
    """Even where they would be measured otherwise now."""
    seconds = {"training": {"fp32": 1.0, "bf16": 2.0}}
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(precision, "measure", lambda device, purpose: seconds[purpose])
    the_plan = plan(ragged, tmp_path / "run", precision="auto")
    record = tmp_path / "run" / "config.json"
    first = open_fit(the_plan, accelerator_for("cpu", "auto", record))
    choices = first.run.config["precision_choice"]
    assert (first.run.config["precision"], first.run.precision) == ("no", "fp32")
    assert choices["training"]["why"] == "measured for training: fp32 1000.00 ms, bf16 2000.00 ms"
    for event in first.events():
        if isinstance(event, Evaluation):
            break
    seconds.update(training={"fp32": 2.0, "bf16": 1.0})
    again = open_fit(the_plan, accelerator_for("cpu", "auto", record))
    assert again.state.step > 0
    assert again.run.config["precision_choice"] == choices
    assert (again.run.config["precision"], again.run.precision) == ("no", "fp32")
