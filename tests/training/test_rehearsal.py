"""`--dry-run` states the peak memory of a training, within 15 %, of what a real one then takes."""

import os
import re
import subprocess
import sys

import pytest
from conftest import write_lines

SHAPE = [
    "--encoder=dgcnn",
    "--set=encoder.hidden_size=256",
    "--set=encoder.lstm_size=64",
    "--set=encoder.character_size=512",
]
HEAVY = [
    "--batch-size=32",
    "--set=train.max_tokens=20000",
    "--set=train.average=0.9",
    "--set=train.precision=fp32",
    '--set=train.wrappers=["lookahead"]',
]
"""Settings that hold memory which one plain step would not show."""


def run(*arguments):
    """(what was said on stderr, peak memory in MiB) of a command in a process of its own."""
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    read, write = os.pipe()
    os.close(write)
    process = subprocess.Popen(
        command, stdin=read, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    os.close(read)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said
    return said, usage.ru_maxrss / 1024


def lines_with_names(count, least):
    """Lines of several lengths, each with a name."""
    for number in range(count):
        text = "王小明在北京读书" + "，他每天都去图书馆" * (least + number % 4)
        yield {"text": text, "entities": [{"start": 0, "end": 3, "label": "name"}]}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read as Linux states it")
def test_the_peak_of_a_training_is_stated_before_it(tmp_path):
    train = write_lines(tmp_path / "train.jsonl", lines_with_names(64, 10))
    dev = write_lines(tmp_path / "dev.jsonl", lines_with_names(8, 10))
    command = ["train", "ner", "--data", train, "--dev", dev, "--out", tmp_path / "run"]
    command += ["--epochs=1", "--device=cpu", *SHAPE, *HEAVY]
    said, _ = run(*command, "--dry-run")
    found = re.search(r"peak memory of the process: (\d+) MiB", said)
    assert found, said
    stated = float(found[1])
    _, true = run(*command)
    assert stated == pytest.approx(true, rel=0.15)
    assert true > 550  # a process that has read torch and the lines takes 400: the rest is of steps
