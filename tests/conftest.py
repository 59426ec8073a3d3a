"""What several tests need: a small encoder, made-up data, and a run trained in seconds."""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import hypothesis
import pytest
import torch

from nlpkit import samples
from nlpkit.jsonl import dumps

# a shell's background job ignores Ctrl-C, and so would the commands that tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)

SMALL = {
    "hidden_size": 32,
    "dilations": (1, 2),
    "lstm_layers": 1,
    "lstm_size": 16,
    "character_size": 16,
    "word_size": 8,
    "tag_size": 8,
}
DRY = {"dropout": 0.0, "embedding_dropout": 0.0, "hide_word": 0.0, "hide_character": 0.0}
SMALL_FLAGS = ["--encoder=dgcnn"] + [
    f"--set=encoder.{key}={list(v) if isinstance(v, tuple) else v}" for key, v in SMALL.items()
]

hypothesis.settings.register_profile("patient", deadline=None)  # a machine may be busy
hypothesis.settings.load_profile("patient")
torch.set_num_threads(1)
# of the processes that tests start, and of the workers of `-n`: their threads wait asleep, since
# those of several workers would keep each other from the processor
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}


CAMPAIGNS = {
    "kills": (8, "of training commands, at random moments"),
    "lines": (2500, "mutated, over all tasks"),
    "flips": (200, "of bits, over all files of runs, tries and knowledge bases"),
}
"""Campaign -> (how many it tries by default, of what): each is an option `--NAME N`. They lie in
`campaigns/`, are seeded and marked slow: `python -m pytest tests/campaigns -m slow --kills 1000`."""


def pytest_addoption(parser):
    group = parser.getgroup("campaigns")
    for name, (default, what) in CAMPAIGNS.items():
        group.addoption(f"--{name}", type=int, default=default, help=what)
    group.addoption("--campaign-seed", type=int, default=1, help="of all that is random in them")


@pytest.fixture
def campaign(request):
    """`campaign(name)`: (how many to try, a seed)."""
    option = request.config.getoption
    return lambda name: (option(f"--{name}"), option("--campaign-seed"))


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same weights, whatever ran before it."""
    torch.manual_seed(0)


ROOT = Path(__file__).parents[1]


@cache
def warm_server(path=str(ROOT)):
    """(a process that has imported everything, the words of a shell that run `nlpkit` in a fork of
    it); see warm.py.

    Args:
        path: PYTHONPATH of the process.
    """
    socket = Path(tempfile.mkdtemp(prefix="nlpkit")) / "socket"
    atexit.register(shutil.rmtree, socket.parent)
    program = str(ROOT / "tests" / "warm.py")
    server = subprocess.Popen(
        [sys.executable, program, "serve", str(socket)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert server.stdout.readline() == b"ready\n"
    return server, [sys.executable, "-S", "-I", program, str(socket)]


def nlpkit(*arguments, stdin=b"", check=True, timeout=300, fresh=False, command=None, **options):
    """Runs the command as a user's shell would.

    Args:
        fresh: in an interpreter of its own, seconds slower.
        command: the words that run it; None means those of `warm_server`.
    """
    environment = {**os.environ, **options.pop("env", {})}
    if fresh:
        command = [sys.executable, "-m", "cli.main"]
    command = command or warm_server()[1]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=timeout,
        env=environment,
        **options,
    )
    if check:
        assert done.returncode == 0, done.stderr.decode()
    return done


def write_lines(path, records):
    Path(path).write_bytes(b"".join(dumps(record) + b"\n" for record in records))
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """200 made-up lines of relation extraction."""
    return write_lines(
        tmp_path_factory.mktemp("data") / "data.jsonl", samples.records("gplinker", 200, seed=1)
    )


@pytest.fixture(scope="session")
def run(tmp_path_factory, data):
    """A run of gplinker that is bad, but predicts."""
    folder = tmp_path_factory.mktemp("runs") / "gplinker"
    settings = [
        "--set=train.learning_rate=1e-2",
        "--set=gplinker.replace=0",
        "--set=train.precision=fp32",
        "--set=train.evaluate_every=14",
    ]
    nlpkit(
        "train",
        "gplinker",
        "--data",
        data,
        "--dev",
        data,
        "--out",
        folder,
        "--epochs",
        14,
        *settings,
        *SMALL_FLAGS,
    )
    metrics = json.loads((folder / "config.json").read_text())["result"]["metrics"]
    assert metrics["predicted"] > 50
    assert 0.1 < metrics["f1"] < 1
    return folder
