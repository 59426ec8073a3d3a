"""An exported run predicts as the run does, for every task that can be exported; its folder is
checked like any run's, and names no other place."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from small_runs import predictions_of, records_of, save_run

from nlpkit import tasks
from nlpkit.errors import SettingsError
from nlpkit.inference.export import check_exportable, export
from nlpkit.inference.predictor import Predictor
from nlpkit.jsonl import dumps
from nlpkit.run import load

WRITING = ["ape210k", "cln", "kgclue", "mrc_seq2seq", "xiangqi"]
UNCHECKED = {"run": {"check": False}}


def exported(name, folder, int8=False, **settings):
    """A small run of the task, as it was saved, and its export, loaded from where it was moved."""
    saved = save_run(name, folder / "run", **settings)
    (folder / "new").mkdir()
    export(saved, folder / "new", int8)
    (folder / "new").rename(folder / "export")
    return saved, load(folder / "export")


def plain(predictions):
    """Predictions as values of JSON, numbers to three digits."""
    return [rounded(json.loads(dumps(prediction))) for prediction in predictions]


def rounded(value):
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return pytest.approx(value, abs=2e-3) if isinstance(value, float) else value


@pytest.mark.parametrize("name", [name for name in tasks.names() if name not in WRITING])
def test_an_export_predicts_as_its_run(name, tmp_path):
    saved, found = exported(name, tmp_path)
    records = records_of(name)
    predicted = predictions_of(found, records)
    assert plain(predicted) == plain(predictions_of(saved, records))
    assert found.is_export
    assert found.precision == "fp32"
    for path in (tmp_path / "export").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path


@pytest.mark.parametrize("name", ["gplinker", "mrc_mlm"])
def test_in_8_bits_too_a_line_has_the_same_bytes_beside_any_others(name, tmp_path):
    _, found = exported(name, tmp_path, int8=True)
    records = list(enumerate(records_of(name), 1))
    together = [
        dumps(outcome.prediction) for outcome in Predictor(found.task, found.model)(records)
    ]
    predictor = Predictor(found.task, found.model, batch_size=1)
    alone = [[one] for one in records]
    with ThreadPoolExecutor(3) as threads:  # which share the graph
        outcomes = list(threads.map(predictor, alone))
    assert [dumps(found[0].prediction) for found in outcomes] == together


@pytest.mark.parametrize("name", WRITING)
def test_a_task_that_writes_is_refused(name, tmp_path):
    saved = save_run(name, tmp_path / "run")
    with pytest.raises(SettingsError, match=f"run: a run of {name} cannot be exported: it writes"):
        check_exportable(saved)


def test_entities_that_are_written_are_refused(tmp_path):
    task_class = tasks.load("entity_linking")
    assert not task_class.needs_extend(task_class.Config())
    assert task_class.needs_extend(task_class.Config(generative=True))


@pytest.fixture(scope="module")
def linking(tmp_path_factory):
    """The folder of an export with a copy of a knowledge base."""
    folder = tmp_path_factory.mktemp("linking")
    return exported("entity_linking", folder)[1].folder


@pytest.fixture
def copy(linking, tmp_path):
    """An export that a test may damage."""
    return shutil.copytree(linking, tmp_path / "copy")


@pytest.mark.parametrize("name", ["encoder.onnx", "kb", "tokenizer.json"])
def test_a_damaged_file_is_refused_by_its_name(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load(copy)
    assert caught.value.message == f"{copy / name}: not as the training wrote it"
    (copy / name).unlink()
    with pytest.raises(SettingsError, match=f"{name}: missing"):
        load(copy)


def test_a_config_of_other_sizes_is_refused(copy):
    path = copy / "config.json"
    text = path.read_text()
    assert '"hidden_size": 16' in text
    path.write_text(text.replace('"hidden_size": 16', '"hidden_size": 1000000000'))
    with pytest.raises(SettingsError, match="the weights have no such size: 1000000000"):
        load(copy, values=UNCHECKED)


def test_without_the_extra_a_run_of_it_names_it(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingsError, match="an exported encoder needs onnxruntime") as caught:
        load(copy)
    assert caught.value.hint == "pip install 'nlpkit[onnx]'"


def test_an_export_is_not_exported_again(linking):
    with pytest.raises(SettingsError, match="is an export"):
        check_exportable(load(linking))


def test_the_run_stays_as_it_was(tmp_path):
    saved = save_run("entity_linking", tmp_path / "run")
    kb = saved.task.config.kb
    (tmp_path / "export").mkdir()
    export(saved, tmp_path / "export", int8=False)
    assert saved.task.config.kb == kb
    assert load(tmp_path / "export").task.config.kb == ""


def test_an_encoder_alone_is_exported_as_what_fills_in(tmp_path):
    tiny = load("tiny")
    (tmp_path / "export").mkdir()
    export(tiny, tmp_path / "export", int8=False)
    records = records_of("fill_mask")[:2]
    found = load(tmp_path / "export")
    assert plain(predictions_of(found, records)) == plain(predictions_of(tiny, records))
    with torch.inference_mode():
        assert found.model.encoder.token_logits(torch.zeros(1, 256)).shape == (1, 10000)
