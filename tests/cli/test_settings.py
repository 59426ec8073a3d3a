"""What `nlpkit settings` and `nlpkit tasks` read from the source is what the code has."""

import dataclasses
import importlib
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.settings_source import describe_range, read_settings
from nlpkit import config, tasks
from nlpkit.config import parse_pairs, resolve
from nlpkit.encoders import ShapeConfig
from nlpkit.encoders.checkpoint.load import CheckpointConfig
from nlpkit.encoders.dgcnn import DgcnnConfig
from nlpkit.encoders.gru import GruConfig
from nlpkit.encoders.on_lstm import OnLstmConfig
from nlpkit.encoders.parts import Parts
from nlpkit.optim import wrappers
from nlpkit.pretraining.settings import PretrainConfig
from nlpkit.training import balance, techniques
from nlpkit.training.settings import TrainConfig

FOUND = list(read_settings())
CLASSES = [("train", TrainConfig), ("pretrain", PretrainConfig)]
CLASSES += [(name, tasks.load(name).Config) for name in tasks.names()]
ENCODERS = [CheckpointConfig, ShapeConfig, Parts, DgcnnConfig, GruConfig, OnLstmConfig]


def lines(*arguments):
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.output.splitlines()]


@pytest.mark.parametrize(("section", "cls"), CLASSES, ids=[name for name, _ in CLASSES])
def test_every_setting_is_found_with_its_default(section, cls):
    found = [setting for setting in FOUND if setting.key.startswith(f"{section}.")]
    names = [field.name for field in dataclasses.fields(cls)]
    assert [setting.key.partition(".")[2] for setting in found] == names
    assert all(setting.what for setting in found), [s.key for s in found if not s.what]
    pairs = [f"{s.key}={s.default}" for s in found if s.default != ""]
    assert resolve({section: cls}, parse_pairs(pairs))[section] == cls()


def test_the_encoders_settings_are_found():
    names = sorted(name for cls in ENCODERS for name in cls.__annotations__)
    found = [setting for setting in FOUND if setting.key.startswith("encoder.")]
    assert sorted(setting.key.partition(".")[2] for setting in found) == names
    assert len({setting.of for setting in found}) == len(ENCODERS)


def test_types_and_ranges_are_read():
    by_key = {setting.key: setting for setting in FOUND}
    epochs = by_key["train.epochs"]
    assert (epochs.type, epochs.default) == ("int", "10")
    assert epochs.range == "at least 1, at most 1,000,000"
    assert by_key["train.learning_rate"].type == "float or none"
    assert by_key["train.learning_rate"].range.startswith("above 0")
    assert by_key["ner.head"].type == "efficient, standard"
    assert by_key["train.rates"].type == "list of str"


def test_a_range_in_words():
    assert (
        describe_range(config.Range(2, 8, multiple=2)) == "at least 2, at most 8, a multiple of 2"
    )
    assert describe_range(config.Range(above=0, below=1)) == "above 0, below 1"
    assert describe_range(config.Range()) == ""


def test_the_command_lists_a_section():
    found = lines("settings", "train")
    assert {line["key"].partition(".")[0] for line in found} == {"train"}
    assert len(lines("settings")) == len(FOUND)
    result = CliRunner().invoke(app, ["settings", "tarin"])
    assert 'no section "tarin"; did you mean "train"?' in str(result.exception)


def as_toml(value):
    """A default as a call has it: numbers, booleans and lists as they are, text in quotes."""
    if value in ("true", "false") or value.startswith("["):
        return value
    return value if value.replace(".", "").isdigit() else repr(value)


@pytest.mark.parametrize(
    ("setting", "package", "class_name"),
    [
        ("techniques", techniques, "Technique"),
        ("wrappers", wrappers, "Wrapper"),
        ("balance", balance, "Balance"),
    ],
)
def test_what_a_setting_may_call_is_listed(setting, package, class_name):
    found = lines("settings", setting)
    assert sorted({line["key"].partition(".")[0] for line in found}) == package.names()
    for name in package.names():
        cls = getattr(importlib.import_module(f"{package.__name__}.{name}"), class_name)
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        of_name = [line for line in found if line["key"].partition(".")[0] == name]
        told = {line["key"].partition(".")[2]: line["default"] for line in of_name}
        assert all(line["what"] for line in of_name), name
        if fields:
            assert set(told) == set(fields), name
            written = ", ".join(f"{key}={as_toml(value)}" for key, value in told.items() if value)
            call = f"{name}({written})"
            assert package.parse(call if package is balance else [call]) in (cls(), [cls()])


def test_every_task_says_what_goes_in_and_out():
    found = lines("tasks")
    assert [line["task"] for line in found] == tasks.names()
    for line in found:
        assert line["what"].endswith(".")
        assert line["in"].startswith("{")
        assert '"prediction": {' in line["out"]


def test_the_environment_is_json():
    (found,) = lines("env", "--json")
    assert found["packages"]["torch"]
    for use in ("training", "prediction"):
        assert found["precision"][use]["precision"] in ("fp32", "bf16")
        assert found["precision"][use]["why"]
    assert found["device"] in ("cpu", "cuda")


def test_settings_and_tasks_import_no_torch():
    script = (
        "import sys; from cli.settings_source import read_settings; from cli.tasks import read_task;"
        "assert list(read_settings()) and read_task('ner'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
