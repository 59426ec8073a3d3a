"""`train --seeds`, and the commands that take its folder as one run."""

import json
import shutil

import pytest
from conftest import SMALL_FLAGS, nlpkit, write_lines

from nlpkit import samples
from nlpkit.errors import SettingsError
from nlpkit.inference.seeds import best_run, runs_below

CONFIG = {"task": "ner", "encoder": {"spec": {"kind": "dgcnn"}}, "settings": {}}
FEW = ["--epochs=1", "--set=train.precision=fp32", *SMALL_FLAGS]


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Sixty lines to train on, and to evaluate on."""
    folder = tmp_path_factory.mktemp("few")
    return write_lines(folder / "few.jsonl", samples.records("classification", 60, seed=1))


@pytest.fixture(scope="module")
def trained(few, tmp_path_factory):
    """A folder of three seeds, and what the training wrote."""
    out = tmp_path_factory.mktemp("seeds") / "mine"
    done = nlpkit(
        "train", "classification", "--data", few, "--dev", few, "--out", out, "--seeds", 3, *FEW
    )
    return out, [json.loads(line) for line in done.stdout.splitlines()]


def finished(folder, value):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "result": {"value": value}}))


def test_the_best_of_a_folder(tmp_path):
    for seed, value in ((1, 0.2), (2, 0.7), (10, 0.7)):
        finished(tmp_path / "runs" / f"seed-{seed}", value)
    assert [run.name for run in runs_below(tmp_path / "runs")] == ["seed-1", "seed-2", "seed-10"]
    assert best_run(tmp_path / "runs").name == "seed-2"
    assert best_run(tmp_path / "runs" / "seed-1").name == "seed-1"
    (tmp_path / "new" / "seed-1").mkdir(parents=True)
    (tmp_path / "new" / "seed-1" / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(SettingsError, match="no finished run among its seeds"):
        best_run(tmp_path / "new")


def test_a_line_for_every_seed_and_one_for_all(trained):
    out, lines = trained
    assert [line["run"] for line in lines] == [str(out / f"seed-{s}") for s in (1, 2, 3)] + [
        str(out)
    ]
    values = [line["value"] for line in lines[:3]]
    assert lines[3]["mean"] == pytest.approx(sum(values) / 3, abs=1e-6)
    assert lines[3]["value"] == max(values)
    assert lines[3]["best"] == lines[values.index(max(values))]["run"]
    assert lines[3]["seeds"] == 3
    for seed in (1, 2, 3):
        config = json.loads((out / f"seed-{seed}" / "config.json").read_text())
        assert config["settings"]["train"]["seed"] == seed


def test_a_seed_is_what_it_is_alone(trained, few, tmp_path):
    """The runs before it change nothing."""
    out, _ = trained
    alone = tmp_path / "alone"
    nlpkit(
        "train", "classification", "--data", few, "--dev", few, "--out", alone, "--seed", 3, *FEW
    )
    weights = [(run / "model.safetensors").read_bytes() for run in (alone, out / "seed-3")]
    assert weights[0] == weights[1]


def test_the_same_command_goes_on_with_the_seeds_that_are_left(trained, few):
    """Of finished runs nothing is trained again: the lines are the same, seconds and all."""
    out, lines = trained
    command = ["train", "classification", "--data", few, "--dev", few, "--out", out, *FEW]
    again = nlpkit(*command, "--seeds", 3)
    assert [json.loads(line) for line in again.stdout.splitlines()] == lines
    more = [json.loads(line) for line in nlpkit(*command, "--seeds", 4).stdout.splitlines()]
    assert more[:3] == lines[:3]
    assert more[3]["run"] == str(out / "seed-4")
    assert more[4]["seeds"] == 4
    shutil.rmtree(out / "seed-4")
    done = nlpkit(*command, "--seed", 1, check=False)
    assert done.returncode == 2


def test_predict_and_eval_take_the_best_or_all(trained, few, tmp_path):
    out, lines = trained
    best = json.loads(nlpkit("eval", out, "--data", few).stdout)
    assert best["run"] == lines[3]["best"]
    every = [json.loads(x) for x in nlpkit("eval", out, "--data", few, "--all").stdout.splitlines()]
    assert [line["run"] for line in every] == [line["run"] for line in lines[:3]]
    folder = tmp_path / "predicted"
    nlpkit("predict", out, few, "--all", "-o", folder)
    assert sorted(path.name for path in folder.iterdir()) == [f"seed-{s}.jsonl" for s in (1, 2, 3)]
    one = nlpkit("predict", out, few).stdout
    assert one == (folder / f"{lines[3]['best'].rpartition('/')[2]}.jsonl").read_bytes()
    found = json.loads(nlpkit("compare", out, folder, "--data", few, "--draws", 100).stdout)
    assert [system["seeds"] for system in found["systems"]] == [3, 3]
    assert found["differences"][0]["difference"] == 0.0


def test_seeds_with_processes(few, tmp_path):
    """Every run is shared by two processes, and the lines are told once."""
    out = tmp_path / "shared"
    command = ["train", "classification", "--data", few, "--dev", few, "--seeds", 2, *FEW]
    done = nlpkit(*command, "--out", out, "--processes", 2, "--device", "cpu")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["run"] for line in lines] == [f"{out}/seed-1", f"{out}/seed-2", str(out)]
    for seed in (1, 2):
        config = json.loads((out / f"seed-{seed}" / "config.json").read_text())
        assert config["processes"] == 2
        assert config["settings"]["train"]["seed"] == seed
        assert config["result"]["value"] == lines[seed - 1]["value"]


def test_seeds_under_another_launcher_are_refused(few, tmp_path):
    """It starts the command once for all runs; every run needs processes of its own."""
    done = nlpkit(
        *("train", "classification", "--data", few, "--seeds", 2, "--out", tmp_path / "run"),
        check=False,
        env={"WORLD_SIZE": "2"},
    )
    assert done.returncode == 2
    assert b"not under another launcher" in done.stderr
    assert b"--processes" in done.stderr
    assert not (tmp_path / "run").exists()


def test_all_needs_a_folder_of_seeds(trained, few):
    out, _ = trained
    done = nlpkit("eval", out / "seed-1", "--data", few, "--all", check=False)
    assert done.returncode == 2
    assert b"no runs of seeds in it" in done.stderr
    done = nlpkit("predict", out, few, "--all", check=False)
    assert done.returncode == 2
    assert b"-o DIR" in done.stderr
