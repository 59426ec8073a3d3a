"""The README's commands, all of them, run by bash; only the sizes of data and model are cut."""

import json
import lzma
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import SMALL_FLAGS, warm_server, write_lines

from nlpkit import samples, tasks

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DECISION = (ROOT / "nlpkit" / "evaluation" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README + DECISION, re.DOTALL)
TESTS = "pytest -n auto"
DETAILS = sorted((ROOT / "nlpkit" / "tasks").glob("*/README.md"))
SETUP = re.compile(r"python3 -m venv \.venv && \. \.venv/bin/activate && |pip install [^&]*&& ")

SHIM = """#!/usr/bin/env bash
extra=()
if [[ $1 == train && "$*" != *"--encoder tiny"* ]]; then extra=(--epochs 1 {small}); fi
if [[ $1 == train && "$*" == *"--seeds 3"* ]]; then extra=(--epochs 1 {small} --seeds 2); fi
if [[ "$1 $2" == "data sample" ]]; then extra=(--count 200); fi
if [[ "$1 $2" == "encoder pretrain" ]]; then extra=({few}); fi
if [[ $1 == compare ]]; then extra=(--draws 200); fi
exec {nlpkit} "$@" "${{extra[@]}}"
"""


FEW = [
    "--tokens=2048",
    "--set=pretrain.batch_tokens=1024",
    "--set=pretrain.length=32",
    "--set=encoder.layers=1",
]


def quoted(flags):
    return " ".join(f"'{flag}'" for flag in flags)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the files that the README names, and an `nlpkit` that trains small models."""
    folder = tmp_path_factory.mktemp("readme")
    lines = list(samples.records("gplinker", 120, seed=1))
    (folder / "raw").mkdir()
    raw = [f"raw/{name}.json" for name in ("duie_train", "both_versions", "some_relations")]
    for name in ("ske.jsonl", "dev.jsonl", "texts.jsonl", *raw):
        write_lines(folder / name, lines)
    write_lines(folder / "people.jsonl", samples.records("ner", 60, seed=1))
    gold = [{"spo_list": [list(t.values())[:3] for t in line["spo_list"]]} for line in lines]
    write_lines(
        folder / "predicted_dev.jsonl",
        [{**x, "prediction": g} for x, g in zip(lines, gold, strict=True)],
    )
    subprocess.run(["gzip", "-k", "ske.jsonl"], cwd=folder, check=True)
    (folder / "ske.jsonl.gz").rename(folder / "big.jsonl.gz")
    texts = "\n".join(line["text"] for line in samples.records("ner", 3000, seed=2)).encode()
    (folder / "books.txt.xz").write_bytes(lzma.compress(texts))
    (folder / "news.txt").write_bytes(texts)
    (folder / "names.txt").write_text("云岭\n云泽\n云泽港\n桐溪\n", encoding="utf-8")
    (folder / "bin").mkdir()
    shim = folder / "bin" / "nlpkit"
    shim.write_text(
        SHIM.format(nlpkit=shlex.join(warm_server()[1]), small=quoted(SMALL_FLAGS), few=quoted(FEW))
    )
    shim.chmod(0o755)
    return folder


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_the_commands_of_a_block_run(place, index):
    block = SETUP.sub("", BLOCKS[index])
    if block.strip() == TESTS:
        return
    if "jq" in block and not shutil.which("jq"):
        block = re.sub(r"\| jq [^|>]*'", "| cat", block)
    shutil.rmtree(place / "runs", ignore_errors=True)
    environment = {
        **os.environ,
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    script = "set -euo pipefail\n" + block
    done = subprocess.run(
        ["bash", "-c", script], cwd=place, env=environment, capture_output=True, timeout=900
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_second_command_is_the_one_that_ci_runs():
    (command,) = [block.strip() for block in BLOCKS if block.strip().endswith(TESTS)]
    parts = command.replace(" -q", "").split(" && ")
    ci = (ROOT / ".ci" / "run").read_text().replace(" -q", "")
    assert all(part in ci for part in parts)


def test_every_task_has_its_row_and_its_lines_are_json():
    for name in tasks.names():
        (row,) = [line for line in README.splitlines() if line.startswith(f"| `{name}` | ")][:1]
        values = re.findall(r"`(\{.*?\})`", row)
        assert values
        for value in values:
            assert json.loads(value)


@pytest.mark.parametrize("path", DETAILS, ids=lambda path: path.parent.name)
def test_the_lines_of_a_task_s_own_readme_are_json(path):
    lines = re.findall(
        r"^    (?:in|train|out) +(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(lines) == 3
    for line in lines:
        values = re.findall(r"\{.*?\}(?=  |$)", line)
        assert values
        for value in values:
            assert json.loads(value)


def test_it_is_short_and_what_it_points_at_is_there():
    assert len(README.splitlines()) <= 150
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 8
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_tree_names_files_that_exist():
    tree = README.split("## The tree")[1].split("```")[1]
    known = {path.name for path in [*ROOT.glob("nlpkit/**/*"), *ROOT.glob("*")]}
    named = re.findall(r"[a-z_]+\.py", tree)
    assert len(named) > 10
    assert set(named) <= known


def test_every_exit_code_is_told():
    from cli import main

    told = set(re.findall(r"\| (\d+) \|", README.partition("| exit |")[2]))
    assert (
        told
        == set(re.findall(r"\b(\d+) [a-zC]", main.__doc__.split("code.")[1]))
        == {*"012345", "130", "141"}
    )
