"""Settings that `predict` and `eval` take over those of the training: all of them count, or are
refused by name."""

import json

import pytest
from conftest import SMALL_FLAGS, nlpkit, write_lines

from nlpkit import run, samples
from nlpkit.encoders import tensor_file
from nlpkit.errors import SettingsError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(run, its data)."""
    folder = tmp_path_factory.mktemp("settings")
    data = write_lines(folder / "data.jsonl", samples.records("ner", 40, 1))
    nlpkit(
        "train",
        "ner",
        "--data",
        data,
        "--dev",
        data,
        "--out",
        folder / "run",
        "--epochs=1",
        *SMALL_FLAGS,
    )
    return folder / "run", data


def test_a_setting_that_the_task_reads_when_it_is_made_counts():
    line = '{"text": "我[MASK]天去。"}'.encode()
    for count in (2, 7):
        done = nlpkit("predict", "tiny", f"--set=fill_mask.candidates={count}", stdin=line)
        (mask,) = json.loads(done.stdout)["prediction"]["masks"]
        assert len(mask["candidates"]) == count


def test_a_setting_changes_what_is_loaded_and_nothing_else(trained):
    folder, data = trained
    plain, changed = run.load(folder), run.load(folder, values={"ner": {"threshold": 1e9}})
    assert {**vars(plain.task.config), "threshold": 1e9} == vars(changed.task.config)
    assert (
        json.loads(nlpkit("eval", folder, "--data", data, "--set=ner.threshold=1e9").stdout)["f1"]
        == 0
    )


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("ner.head_size=8", "model.safetensors: does not fit the settings: size mismatch for "),
        ("ner.head=standard", "model.safetensors: does not fit the settings: "),
        ("ner.head_sise=8", 'unknown setting "ner.head_sise"; did you mean "head_size"?'),
        ("nex.head_size=8", 'unknown section "nex"; did you mean "ner"?'),
        ("ner.head_size=0", "head_size: expected"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(trained, pair, message):
    folder, data = trained
    for arguments in (["predict", folder, data], ["eval", folder, "--data", data]):
        done = nlpkit(*arguments, f"--set={pair}", check=False)
        assert (done.returncode, done.stdout) == (2, b"")
        assert message in done.stderr.decode()
        assert "Traceback" not in done.stderr.decode()


def test_weights_that_lack_a_tensor_are_refused(trained, tmp_path):
    folder, _ = trained
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights, plain = tensor_file.load_tensors(folder / "model.safetensors")
    lost = sorted(weights)[0]
    tensor_file.save_tensors(
        tmp_path / "model.safetensors", {k: v for k, v in weights.items() if k != lost}, plain
    )
    with pytest.raises(
        SettingsError, match="does not fit the settings: .*" + lost.replace(".", r"\.")
    ):
        run.load(tmp_path)
