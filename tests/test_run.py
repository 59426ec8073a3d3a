"""A run directory: what is damaged, half written or of something else is refused by its name."""

import json
import shutil

import pytest
import safetensors.torch
import torch
from small_runs import predictions_of, records_of, save_run

from nlpkit import config, run
from nlpkit.encoders import tensor_file
from nlpkit.errors import SettingsError

UNCHECKED = {"run": {"check": False}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_run("classification", tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def copy(saved, tmp_path):
    """The folder of a run that a test may damage."""
    return shutil.copytree(saved.folder, tmp_path / "run")


def refused(folder, why, values=None):
    with pytest.raises(SettingsError) as caught:
        run.load(folder, values=values)
    assert why in caught.value.message
    return caught.value


def edit_config(folder, edit):
    values = json.loads((folder / "config.json").read_bytes())
    edit(values)
    (folder / "config.json").write_text(json.dumps(values))


def test_a_run_predicts_as_it_did_when_it_was_saved(saved):
    records = records_of("classification")
    assert predictions_of(run.load(saved.folder), records) == predictions_of(saved, records)


@pytest.mark.parametrize(
    "name", ["config.json", "labels.json", "model.safetensors", "tokenizer.json"]
)
@pytest.mark.parametrize("content", [b"", b"null", b"5", b"[]", b"{}", b'{"task"', b"\xff\xfe"])
def test_a_file_of_something_else_is_refused_by_its_name(copy, name, content):
    (copy / name).write_bytes(content)
    refused(copy, f"{copy / name}: ")
    is_empty = (name, content) == ("labels.json", b"[]")  # then the weights do not fit
    refused(copy, f"{copy / 'model.safetensors' if is_empty else copy / name}: ", UNCHECKED)


@pytest.mark.parametrize("name", ["labels.json", "tokenizer.json"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    refused(copy, f"{copy / name}: missing")
    refused(copy, f"{copy / name}: ", UNCHECKED)


@pytest.mark.parametrize("name", ["labels.json", "tokenizer.json", "model.safetensors"])
def test_half_a_file_is_refused(copy, name):
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2])
    refused(copy, f"{copy / name}: ")
    refused(copy, f"{copy / name}: ", UNCHECKED)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda config: config.update(task="ner"), ""),
        (lambda config: config.update(task="no"), "unknown task"),
        (
            lambda config: config.pop("settings"),
            'config.json: not the config of a run: no "settings"',
        ),
        (
            lambda config: config.pop("encoder"),
            'config.json: not the config of a run: no "encoder"',
        ),
        (
            lambda config: config["encoder"].update(spec=3),
            'config.json: not the config of a run: no "encoder.spec"',
        ),
        (
            lambda config: config["settings"].update(train=[]),
            'config.json: "train": expected an object',
        ),
        (
            lambda config: config["encoder"]["spec"].update(kind="x"),
            "config.json: unknown kind of encoder",
        ),
        (lambda config: config["encoder"]["spec"].update(other=1), "config.json: "),
        (
            lambda config: config["encoder"]["spec"]["config"].update(hidden_size=10**9),
            "no such size",
        ),
        (
            lambda config: config["encoder"]["spec"]["config"].update(num_hidden_layers=9999),
            "no such size",
        ),
        (
            lambda config: config["encoder"]["spec"]["config"].update(
                parts={"attention": "performer", "features": 10**9}
            ),
            "features: the weights have no such size",
        ),
        (
            lambda config: config["encoder"]["spec"]["config"].update(hidden_size="16"),
            "config.json: ",
        ),
        (
            lambda config: config["encoder"]["spec"]["config"].update(num_attention_heads=0),
            "config.json: ",
        ),
        (lambda config: config["encoder"]["spec"].update(config=None), "config.json: "),
    ],
)
def test_a_changed_config_is_refused(copy, edit, why):
    edit_config(copy, edit)
    error = refused(copy, "config.json: ")
    assert error.exit_code == 2
    refused(copy, why, UNCHECKED)


def test_a_change_on_purpose_is_said(copy):
    edit_config(
        copy, lambda config: config["encoder"]["spec"]["config"].update(num_attention_heads=4)
    )
    error = refused(copy, "config.json: not as the training wrote it")
    assert error.hint == "if it was changed on purpose: --set run.check=false"
    changed = run.load(copy, values=UNCHECKED)
    assert changed.config["encoder"]["spec"]["config"]["num_attention_heads"] == 4
    labels = json.loads((copy / "labels.json").read_bytes())
    (copy / "labels.json").write_text(json.dumps(labels[::-1]))
    assert run.load(copy, values=UNCHECKED).task.labels == labels[::-1]


def test_what_a_prediction_does_not_depend_on_may_change(copy):
    edit_config(copy, lambda config: config.update(result={"metrics": {}}))
    (copy / "README.md").write_text("mine")
    run.load(copy)


def test_a_run_without_hashes_is_loaded_as_it_is(copy):
    weights, plain = tensor_file.load_tensors(copy / "model.safetensors")
    plain.pop("config_sha256")
    header = {"plain": json.dumps(plain)}
    (copy / "model.safetensors").write_bytes(safetensors.torch.save(weights, header))
    edit_config(copy, lambda config: config.pop("files"))
    run.load(copy)


def test_a_run_of_before_a_setting_was_renamed_is_loaded(saved, copy, monkeypatch):
    """A user cannot write the new name into a run; only one who sets the old name is told it."""
    monkeypatch.setitem(config.RENAMED, "classification.longest", "classification.max_length")
    weights, plain = tensor_file.load_tensors(copy / "model.safetensors")
    plain["settings"]["longest"] = plain["settings"].pop("max_length")
    tensor_file.save_tensors(copy / "model.safetensors", weights, plain)
    assert run.load(copy).task.config == saved.task.config
    with pytest.raises(SettingsError, match='it is "classification.max_length" now'):
        run.load(copy, values={"classification": {"longest": 99}})


@pytest.mark.parametrize("plain", [[], None, {}, {"settings": []}, {"settings": {"no": 1}}])
def test_a_header_without_settings_is_refused(copy, plain):
    weights, _ = tensor_file.load_tensors(copy / "model.safetensors")
    tensor_file.save_tensors(copy / "model.safetensors", weights, plain)
    refused(copy, "no" if isinstance(plain, dict) and plain else f"{copy}/model.safetensors: ")


def test_weights_of_another_type_are_refused(copy):
    weights, plain = tensor_file.load_tensors(copy / "model.safetensors")
    halved = {name: tensor.to(torch.float16) for name, tensor in weights.items()}
    tensor_file.save_tensors(copy / "model.safetensors", halved, plain)
    refused(copy, "model.safetensors: ")


@pytest.mark.parametrize("place", [8, 200, -1, -1000])
def test_a_flipped_bit_of_the_weights_is_refused(copy, place):
    raw = bytearray((copy / "model.safetensors").read_bytes())
    raw[place] ^= 4
    (copy / "model.safetensors").write_bytes(raw)
    refused(copy, f"{copy}/model.safetensors: ")


def test_a_continued_training_keeps_the_hashes_of_its_start(copy):
    first = json.loads((copy / "config.json").read_bytes())["files"]
    assert sorted(first) == ["labels.json", "tokenizer.json"]
    loaded = run.load(copy)
    del loaded.config["files"]
    (copy / "notes.txt").write_text("of the user")
    loaded.save_config()
    assert json.loads((copy / "config.json").read_bytes())["files"] == first
