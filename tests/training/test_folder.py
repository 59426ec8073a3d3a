"""The folder of a training: one training at a time, what is said where nothing can be written, and the
same command met again."""

import json
import os
import signal
import subprocess
import time
from dataclasses import replace

import pytest
from conftest import SMALL, SMALL_FLAGS, nlpkit, warm_server, write_lines

from nlpkit import samples
from nlpkit.errors import DataError, SettingsError
from nlpkit.folder_lock import claimed
from nlpkit.inference.devices import accelerator_for
from nlpkit.training import plan as plans
from nlpkit.training.checkpoints import CHECKPOINT
from nlpkit.training.folder import is_to_resume, new_folder, put_in_place, remove_scraps
from nlpkit.training.plan import Plan, load_data
from nlpkit.training.resume import open_fit


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    records = list(samples.records("ner", 40, seed=2))
    return write_lines(tmp_path_factory.mktemp("lines") / "data.jsonl", records)


def flags(lines, out, *more):
    shared = ["train", "ner", "--data", lines, "--dev", lines, "--out", out, *SMALL_FLAGS]
    return [*shared, "--epochs=2", "--set=train.precision=fp32", *more]


def plan(lines, out, **train):
    train = {"epochs": 2, "precision": "fp32", **train}
    values = ({"train": train, "encoder": SMALL},)
    paths = (str(lines),)
    return Plan("ner", paths, out, dev=paths, encoder="dgcnn", values=values, device="cpu")


def weights_of(fit):
    for _ in fit.events():
        pass
    return {name: tensor.clone() for name, tensor in fit.run.model.state_dict().items()}


def test_one_training_alone_has_a_folder(tmp_path):
    with claimed(tmp_path / "run", is_main=True):
        refused = pytest.raises(SettingsError, match="run: another training is writing it")
        with refused, claimed(tmp_path / "run", is_main=True):
            pass
        with claimed(tmp_path / "run", is_main=False), claimed(tmp_path / "other", is_main=True):
            pass
    with claimed(tmp_path / "run", is_main=True):
        pass
    assert not list(tmp_path.iterdir())


def test_a_process_that_is_killed_claims_nothing(tmp_path):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with claimed(tmp_path / "run", is_main=True):
            os.write(write, b".")
            time.sleep(60)
    os.read(read, 1)
    with pytest.raises(SettingsError), claimed(tmp_path / "run", is_main=True):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with claimed(tmp_path / "run", is_main=True):
        pass


def test_a_run_goes_on_that_does_not_know_a_setting_that_came_later(lines, tmp_path):
    fit = open_fit(plan(lines, tmp_path / "run"), accelerator_for("cpu", "fp32"))
    for event in fit.events():
        fit.state.interrupted = event.step == 2
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_bytes())
    for section, name in (("train", "wrappers"), ("train", "balance"), ("ner", "head_size")):
        del config["settings"][section][name]
    del config["settings"]["encoder"]["dropout"]
    del config["encoder"]["spec"]["config"]["dropout"]
    path.write_text(json.dumps(config))
    other = plan(lines, tmp_path / "run", balance="initial")
    with pytest.raises(SettingsError, match="train.balance is now 'initial', the run has 'sum'"):
        open_fit(other, accelerator_for("cpu", "fp32"))
    resumed = open_fit(plan(lines, tmp_path / "run"), accelerator_for("cpu", "fp32"))
    assert resumed.state.step == 3
    assert resumed.run.config["encoder"] == config["encoder"]


def test_a_second_training_into_one_folder_is_refused(lines, tmp_path):
    out = tmp_path / "run"
    words = [str(word) for word in flags(lines, out, "--epochs=500")]
    first = subprocess.Popen([*warm_server()[1], *words], stderr=subprocess.PIPE)
    while b"epoch 1.00" not in first.stderr.readline():
        assert first.poll() is None
    second = nlpkit(*flags(lines, out, "--force"), check=False)
    assert second.returncode == 2
    assert second.stderr.startswith(f"error: {out}: another training is writing it\n".encode())
    first.send_signal(signal.SIGINT)
    rest = first.stderr.read()
    assert first.wait(timeout=60) == 130, rest.decode()
    assert (out / CHECKPOINT).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_the_same_command_ends_well_where_it_is_done(lines, tmp_path):
    out = tmp_path / "run"
    first = nlpkit(*flags(lines, out))
    before = (out / "model.safetensors").stat().st_mtime_ns
    (out / CHECKPOINT).write_bytes(b"of a process that was killed at the very end")
    again = nlpkit(*flags(lines, out))
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    assert not (out / CHECKPOINT).exists()
    for more in (["--seed=2"], ["--set=ner.replace=0.1"], ["--resume=never"]):
        other = nlpkit(*flags(lines, out, *more), check=False)
        assert other.returncode == 2, more
        assert b"holds a finished run" in other.stderr
    assert (out / "model.safetensors").stat().st_mtime_ns == before


def test_where_nothing_can_be_written(lines, tmp_path):
    (tmp_path / "file").touch()
    for out in ("/proc/no/run", tmp_path / "file" / "run"):
        done = nlpkit(*flags(lines, out), check=False)
        assert done.returncode == 2
        assert f"error: {out}: cannot be written: ".encode() in done.stderr


def test_a_full_disk_leaves_the_checkpoint_and_says_so(lines, tmp_path):
    expected = weights_of(
        open_fit(plan(lines, tmp_path / "straight"), accelerator_for("cpu", "fp32"))
    )
    out = tmp_path / "run"
    fit = open_fit(plan(lines, out), accelerator_for("cpu", "fp32"))
    for event in fit.events():
        fit.state.interrupted = event.step == 3
    kept = (out / CHECKPOINT).read_bytes()
    # no file may grow beyond 50 kB: what a full disk does to a writer, at a known place
    full = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
    done = nlpkit(*flags(lines, out, "--device=cpu"), check=False, env={"BEFORE": full})
    assert done.returncode == 1
    assert b"cannot be written: File too large" in done.stderr
    assert b"Traceback" not in done.stderr
    assert (out / CHECKPOINT).read_bytes() == kept
    assert not [path for path in out.iterdir() if path.name.endswith(".tmp")]
    found = weights_of(open_fit(plan(lines, out), accelerator_for("cpu", "fp32")))
    assert all(expected[name].equal(tensor) for name, tensor in found.items())


def test_data_may_change_while_it_is_trained_on(lines, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_bytes(lines.read_bytes())
    expected = weights_of(open_fit(plan(data, tmp_path / "one"), accelerator_for("cpu", "fp32")))
    fit = open_fit(plan(data, tmp_path / "two"), accelerator_for("cpu", "fp32"))
    data.write_text("{}\n")
    found = weights_of(fit)
    assert all(expected[name].equal(tensor) for name, tensor in found.items())


def test_processes_that_read_different_data_are_stopped(lines, monkeypatch):
    class Two:
        num_processes = 2

    monkeypatch.setattr(plans, "from_main", lambda value: ("other", value[1]))
    with pytest.raises(DataError, match="changed while the processes read it"):
        load_data(plan(lines, None), Two())
    monkeypatch.setattr(plans, "from_main", lambda value: value)
    assert len(load_data(plan(lines, None), Two()).train.pairs) == 40


def test_what_a_killed_process_left_is_taken_for_nothing_else(tmp_path):
    out = tmp_path / "run"
    new = new_folder(out)
    (new / "config.json").touch()
    put_in_place(new, out)
    again = new_folder(out)
    (again / "labels.json").touch()
    put_in_place(again, out)
    assert [path.name for path in out.iterdir()] == ["labels.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    new_folder(out)
    (tmp_path / ".run.old").mkdir()
    (out / ".config.json.17.tmp").touch()
    remove_scraps(out)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    (out / "labels.json").unlink()
    (out / ".config.json.17.tmp").touch()
    assert not is_to_resume(out, "run", known=False, finished=False, wanted=True, force=False)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("encoder.name=[1]", "encoder.name: expected str, got [1]"),
        ("train.batch_size=99999999999999999999", "train.batch_size: expected at most"),
        ("train.seed=18446744073709551616", "train.seed: expected at most"),
        ("train.schedule=0:nan 1:0", "train.schedule: "),
        ("ner.threshold=nan", "ner.threshold: expected a finite number"),
    ],
)
def test_settings_are_refused_before_anything_is_read(setting, says, tmp_path):
    done = nlpkit(*flags("no-such-file.jsonl", tmp_path / "run", "--set", setting), check=False)
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"error: {says}")


def test_a_forced_training_takes_the_place_of_what_was_there(lines, tmp_path):
    fit = open_fit(plan(lines, tmp_path / "run"), accelerator_for("cpu", "fp32"))
    weights_of(fit)
    forced = replace(plan(lines, tmp_path / "run", seed=5), force=True)
    weights_of(open_fit(forced, accelerator_for("cpu", "fp32")))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["settings"]["train"]["seed"] == 5
