"""A training on two machines, simulated: two processes that share nothing but a port and, where
they are set up well, the storage of the run."""

import json
import os
import socket
import subprocess
import sys

import pytest
import safetensors.torch
from conftest import DRY, ROOT, SMALL_FLAGS, nlpkit, warm_server, write_lines

from nlpkit import samples

FLAGS = [
    *SMALL_FLAGS,
    *(f"--set=encoder.{key}={value}" for key, value in DRY.items()),
    *("--set=train.precision=fp32", "--epochs=1", "--batch-size=12", "--device=cpu"),
    *("--data", "data.jsonl"),
]


@pytest.fixture
def nodes(tmp_path):
    """The folders of two machines, each with the data on a disk of its own."""
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
        write_lines(folder / "data.jsonl", samples.records("gplinker", 40, seed=1))
    return folders


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def train(nodes, out):
    """Starts the training on every node; (exit code, stdout, stderr) of each."""
    shared = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    shared |= {"LOCAL_WORLD_SIZE": 1, "LOCAL_RANK": 0, "ACCELERATE_USE_CPU": "true"}
    started = []
    for rank, folder in enumerate(nodes):
        places = {name: str(value) for name, value in {**shared, "RANK": rank}.items()}
        command = [*warm_server()[1], "train", "gplinker", *FLAGS, "--out", str(out)]
        started.append(
            subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **places},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    results = [process.communicate(timeout=300) for process in started]
    return [(p.returncode, *texts) for p, texts in zip(started, results, strict=True)]


def test_two_nodes_train_as_one_machine(nodes, tmp_path):
    (first, second) = train(nodes, tmp_path / "two")
    assert first[0] == second[0] == 0, (first, second)
    assert json.loads(first[1])["run"] == str(tmp_path / "two")
    assert second[1] == b""  # one process speaks
    flags = ["--out", tmp_path / "one", "--processes=2"]
    nlpkit("train", "gplinker", *FLAGS, *flags, cwd=nodes[0])
    found, expected = (
        safetensors.torch.load_file(tmp_path / name / "model.safetensors")
        for name in ("two", "one")
    )
    for name, tensor in expected.items():
        assert tensor.equal(found[name]), name


def test_a_run_that_not_all_nodes_can_see_is_refused_by_all(nodes):
    for code, out, said in train(nodes, "runs/here"):
        assert (code, out) == (2, b"")
        assert "error: runs/here: not all processes see this folder" in said.decode()
    assert not (nodes[0] / "runs" / "here").exists()
    assert not (nodes[1] / "runs").exists()


def start(nodes, launcher):
    """Starts a launcher on every node, which gets its rank; the processes."""
    return [
        subprocess.Popen(
            [sys.executable, "-m", *launcher(rank)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank, folder in enumerate(nodes)
    ]


@pytest.mark.slow
def test_torchrun_launches_two_nodes(nodes, tmp_path):
    port = free_port()

    def launcher(rank):
        command = ["torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
        command += [f"--node_rank={rank}", "--master_addr=127.0.0.1", f"--master_port={port}"]
        return [*command, "-m", "cli.main", "train", "gplinker", *FLAGS, "--out", tmp_path / "run"]

    started = start(nodes, launcher)
    first, second = (process.communicate(timeout=600) for process in started)
    assert [process.returncode for process in started] == [0, 0], (first, second)
    assert json.loads(first[0].splitlines()[-1])["run"] == str(tmp_path / "run")
    assert second[0] == b""


@pytest.mark.slow
def test_accelerate_without_mpi_is_refused_on_a_cpu(nodes, tmp_path):
    port = free_port()

    def launcher(rank):
        command = ["accelerate.commands.launch", "--cpu", "--num_machines=2", "--num_processes=2"]
        command += [f"--machine_rank={rank}", "--main_process_ip=127.0.0.1"]
        command += [f"--main_process_port={port}", "--module", "cli.main", "train", "gplinker"]
        return [*command, *FLAGS, "--out", tmp_path / "run"]

    for process in start(nodes, launcher):
        _, said = process.communicate(timeout=300)
        assert process.returncode == 1  # the launcher's own
        assert b"not told how many they are" in said
        assert b"hint: torchrun" in said
    assert not (tmp_path / "run").exists()
