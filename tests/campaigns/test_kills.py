"""kill -9 at random moments of every kind of training: whatever moment it is, the same command goes on
to the same weights, bit for bit, and nothing is left lying about."""

import json
import random
import signal
import subprocess
import time

import pytest
from conftest import SMALL_FLAGS, nlpkit, warm_server, write_lines

from nlpkit import encoders, samples
from nlpkit.encoders.checkpoint.load import save_encoder
from nlpkit.errors import SettingsError
from nlpkit.folder_lock import claimed

pytestmark = pytest.mark.slow

# counts what is done to files, and kills before number `when`
KILLER = """
import os, signal
left = [{when}]

def dangerous(function):
    def wrapped(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return wrapped

for name in ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir"):
    setattr(os, name, dangerous(getattr(os, name)))
"""
MOST_OPERATIONS = 60  # on files, of a command: some more than the longest has
SMALL_SHAPE = {"layers": 1, "hidden_size": 32, "heads": 2, "intermediate_size": 48}
TRAIN = ["--epochs=3", "--batch-size=12", "--device=cpu", "--set=train.precision=fp32"]
TASKS = {
    "ner": SMALL_FLAGS,
    "gplinker": [*SMALL_FLAGS, "--set=train.average=0.9"],
    "classification": [*SMALL_FLAGS, '--set=train.techniques=["fgm(epsilon=0.1)"]'],
    "entity_linking": [*SMALL_FLAGS, "--kb"],
    "ape210k": ["--set=ape210k.disturb=0.3"],
    "cln": ["--set=cln.latent=4", "--set=cln.annealing=50", "--set=cln.max_length=24"],
    "mrc_mlm": [
        "--set=mrc_mlm.max_passage=48",
        "--set=mrc_mlm.max_question=32",
        "--set=mrc_mlm.max_answer=16",
    ],
}
"""Tasks with the flags of a small training: those without an encoder get a transformer."""
PRETRAIN = ["--tokens=6000", "--set=pretrain.batch_tokens=512", "--set=pretrain.length=32"]
PRETRAIN += ["--set=pretrain.evaluate_every=1500", "--set=pretrain.replaced_share=0.2"]
PRETRAIN += ["--set=encoder.max_length=64", "--set=pretrain.precision=fp32", "--device=cpu"]
PRETRAIN += [f"--set=encoder.{name}={value}" for name, value in SMALL_SHAPE.items()]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The folder of a small transformer with its masked-LM head."""
    folder = tmp_path_factory.mktemp("small")
    encoder, backend = encoders.for_pretraining(
        None, encoders.ShapeConfig(**SMALL_SHAPE, max_length=128, dropout=0.1)
    )
    save_encoder(folder, encoder, backend)
    return folder


def command_of(name, folder, small):
    """The words of a training command without `--out`, its inputs written to the folder."""
    if name == "pretrain":
        texts = [record["text"] for record in samples.records("gplinker", 1500, seed=4)]
        (folder / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
        return ["encoder", "pretrain", folder / "texts.txt", *PRETRAIN]
    data = write_lines(folder / "data.jsonl", samples.records(name, 60, seed=3))
    dev = write_lines(folder / "dev.jsonl", samples.records(name, 8, seed=4))
    flags = list(TASKS[name])
    if "--kb" in flags:
        lines = samples.knowledge_base(name, 60, 3)
        (folder / "kb.jsonl").write_text("\n".join(lines), encoding="utf-8")
        flags.append(folder / "kb.jsonl")
    if not any(str(flag).startswith("--encoder") for flag in flags):
        flags.append(f"--encoder={small}")
    return ["train", name, "--data", data, "--dev", dev, *TRAIN, *flags]


def killed(command, out, before, seconds):
    """Whether a command was killed: by itself (`before`), or after some seconds. Else it is done."""
    words = [*warm_server()[1], *map(str, command), "--out", str(out)]
    environment = {"BEFORE": before, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        wait_until_free(out)
    _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode != 0


def wait_until_free(out):
    """The command dies a moment after the client that was killed."""
    for _ in range(500):
        try:
            with claimed(out, is_main=True):
                return
        except SettingsError:
            time.sleep(0.02)


def result_of(folder):
    """What a training leaves, without what tells the time."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for name in ("config.json", "pretraining.json"):
        if name in found:
            values = json.loads(found[name])
            values.pop("seconds", None)
            values.get("result", {}).pop("seconds", None)
            found[name] = values
    found.pop("README.md")
    return found


@pytest.mark.parametrize("name", [*TASKS, "pretrain"])
def test_a_killed_training_goes_on_to_the_same_weights(name, tmp_path, small, campaign):
    kills, seed = campaign("kills")
    names = [*TASKS, "pretrain"]
    number = names.index(name)
    wanted = kills // len(names) + (number < kills % len(names))
    draw = random.Random(f"{seed} {name}")
    command = command_of(name, tmp_path, small)
    started = time.monotonic()
    nlpkit(*command, "--out", tmp_path / "straight")
    duration = time.monotonic() - started
    expected = result_of(tmp_path / "straight")
    done, turn = 0, 0
    while done < wanted:
        out = tmp_path / f"killed{turn}"
        running = True
        while running:
            running = done < wanted and killed(command, out, **moment(draw, duration))
            done += running
        summary = json.loads(nlpkit(*command, "--out", out).stdout)  # also of one that is done
        assert str(out) in summary.values()
        assert result_of(out) == expected, f"{name}, turn {turn}"
        left = sorted(path.name for path in tmp_path.iterdir())
        assert not [hidden for hidden in left if hidden.startswith(".")], left
        turn += 1


def moment(draw, duration):
    """When to kill: at something done to files, or after some time."""
    if draw.random() < 0.5:
        when = draw.randrange(1, MOST_OPERATIONS)
        return {"before": KILLER.format(when=when), "seconds": 300}
    return {"before": "", "seconds": draw.uniform(0.05, 1.1) * duration}
