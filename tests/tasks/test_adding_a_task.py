"""Adding a task: one file, one sample grammar and ten golden lines in a tree of links to the rest;
every command and the contract then know it, and no other file is touched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL_FLAGS, nlpkit, warm_server, write_lines

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
TOY = Path(__file__).parent / "toy"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The package and the contract as links, and the three files of the task `rain`."""
    top = tmp_path_factory.mktemp("tree")
    link_all(ROOT / "nlpkit", top / "nlpkit", but={"tasks", "samples"})
    link_all(ROOT / "nlpkit" / "tasks", top / "nlpkit" / "tasks")
    link_all(ROOT / "nlpkit" / "samples", top / "nlpkit" / "samples")
    (top / "nlpkit" / "tasks" / "rain.py").write_bytes((TOY / "task.txt").read_bytes())
    (top / "nlpkit" / "samples" / "rain.py").write_bytes((TOY / "sample.txt").read_bytes())
    golden = top / "tests" / "golden" / "rain"
    golden.mkdir(parents=True)
    lines = run(top, "data", "sample", "rain", "--count", 10).stdout
    assert len({line["rains"] for line in map(json.loads, lines.splitlines())}) == 2
    (golden / "sample.jsonl").write_bytes(lines)
    return top


def link_all(source, target, but=()):
    """A folder with a link to everything in the source."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.name not in {"__pycache__", *but}:
            (target / path.name).symlink_to(path)


def path_of(top):
    """PYTHONPATH of the tree; the rest comes from where the tests are."""
    return f"{top}{os.pathsep}{ROOT}"


def run(top, *arguments, code=0):
    """A command in the tree, as a fork of a process that has imported it."""
    command = warm_server(path_of(top))[1]
    done = nlpkit(*arguments, command=command, check=False, cwd=top)
    assert done.returncode == code, (done.stdout + done.stderr).decode()
    return done


@pytest.fixture(scope="module")
def trained(tree):
    """(data, run) of the toy."""
    data = tree / "data.jsonl"
    data.write_bytes(run(tree, "data", "sample", "rain", "--count", 120).stdout)
    folder = tree / "run"
    flags = ["--epochs=8", "--set=train.learning_rate=1e-2", "--set=train.precision=fp32"]
    flags += ["--batch-size=8", *SMALL_FLAGS]
    run(tree, "train", "rain", "--data", data, "--dev", data, "--out", folder, *flags)
    return data, folder


def test_it_trains_predicts_and_is_scored(tree, trained):
    data, folder = trained
    lines = [{"text": "田里下雨了", "id": 1}, {"text": "城里天晴了", "id": 2}]
    written = run(tree, "predict", folder, write_lines(tree / "lines.jsonl", lines)).stdout
    records = list(map(json.loads, written.splitlines()))
    assert [record["id"] for record in records] == [1, 2]
    assert [record["prediction"]["rains"] for record in records] == [True, False]
    whole = json.loads(run(tree, "eval", folder, "--data", data).stdout)
    assert (whole["accuracy"], whole["texts"]) == (1.0, 120)
    predicted = tree / "predicted.jsonl"
    predicted.write_bytes(run(tree, "predict", folder, data).stdout)
    again = json.loads(run(tree, "eval", "--task", "rain", "--data", predicted).stdout)
    assert again["accuracy"] == 1.0


def test_its_data_is_checked_and_bad_lines_are_named(tree, trained):
    bad = [{"text": "下雨了", "rains": "yes"}, {"text": "下雨了", "rains": True}, {"rains": False}]
    file = write_lines(tree / "bad.jsonl", bad)
    done = run(tree, "data", "check", "rain", file, code=3)
    assert json.loads(done.stdout)["findings"] == {"unreadable": 2}
    assert b'bad.jsonl:1: unreadable: field "rains"' in done.stderr
    assert b"no knowledge base" in run(tree, "data", "check", "rain", file, "--kb=x", code=2).stderr


def test_it_keeps_the_contract(tree):
    for name in ("conftest.py", "warm.py"):
        if (TESTS / name).exists():
            (tree / "tests" / name).write_bytes((TESTS / name).read_bytes())
    contract = tree / "tests" / "test_contract.py"
    text = (TESTS / "tasks" / "test_contract.py").read_text(encoding="utf-8")
    contract.write_text(text.replace(".parents[1]", ".parents[0]"), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-k", "rain", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": path_of(tree)}
    done = subprocess.run(
        [*command, contract], capture_output=True, timeout=300, env=environment, cwd=tree
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert b" passed" in done.stdout
    assert b" failed" not in done.stdout
