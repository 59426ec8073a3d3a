"""Metrics written for TensorBoard, and what is said where it is missing."""

import json

import pytest
from conftest import SMALL_FLAGS, nlpkit, write_lines

from nlpkit import samples
from nlpkit.config import build
from nlpkit.errors import SettingsError
from nlpkit.training.settings import TrainConfig
from nlpkit.training.tensorboard import write_evaluation

LINE = {"step": 7, "epoch": 0.5, "f1": 0.25, "match": "strict"}


def read_events(folder):
    """{name: [(step, value)]} of the event files of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    names = found.Tags()["scalars"]
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in names}


def test_the_numbers_of_a_line(tmp_path):
    pytest.importorskip("tensorboard")
    write_evaluation(tmp_path, LINE)
    write_evaluation(tmp_path, {**LINE, "step": 14, "f1": 0.5})
    expected = {"epoch": [(7, 0.5), (14, 0.5)], "f1": [(7, 0.25), (14, 0.5)]}
    assert read_events(tmp_path / "tensorboard") == expected
    write_evaluation(tmp_path, {**LINE, "f1": 0.75})  # a training that was killed goes on
    assert read_events(tmp_path / "tensorboard")["f1"] == [(7, 0.75)]


def test_a_training_writes_what_its_metrics_have(tmp_path):
    pytest.importorskip("tensorboard")
    file = write_lines(tmp_path / "few.jsonl", samples.records("classification", 60, seed=1))
    out = tmp_path / "run"
    flags = ["--epochs=2", "--set=train.tensorboard=true", *SMALL_FLAGS]
    nlpkit("train", "classification", "--data", file, "--dev", file, "--out", out, *flags)
    lines = list(map(json.loads, (out / "metrics.jsonl").read_bytes().splitlines()))
    found = read_events(out / "tensorboard")["accuracy"]
    assert [step for step, _ in found] == [line["step"] for line in lines]
    assert [value for _, value in found] == pytest.approx([line["accuracy"] for line in lines])


def test_without_the_package_the_way_out_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="train.tensorboard") as raised:
        build(TrainConfig, {"tensorboard": True}, "train")
    assert "nlpkit[tensorboard]" in raised.value.hint
    assert build(TrainConfig, {}, "train").tensorboard is False
