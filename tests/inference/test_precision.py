"""`precision auto` by injected timings: nothing here depends on how fast a machine is."""

import json

import pytest
import torch

from nlpkit.inference import precision
from nlpkit.inference.precision import Choice, choose, measure, recorded_choice, report

CPU = torch.device("cpu")


@pytest.fixture
def timings(monkeypatch):
    """Has the block take the seconds that a test sets: (purpose, narrow) -> seconds; counts them."""
    seconds, calls = {}, []

    def time_(block, input_TH, purpose, narrow):
        calls.append((purpose, narrow))
        return seconds[purpose, narrow]

    monkeypatch.setattr(precision, "_time", time_)
    monkeypatch.setattr(precision, "BUDGET", 0.0)
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    measure.cache_clear()
    yield seconds, calls
    measure.cache_clear()


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [(1.0, 0.5, "bf16"), (1.0, 0.79, "bf16"), (1.0, 0.81, "fp32"), (1.0, 2.0, "fp32")],
)
def test_the_faster_is_taken_and_float32_unless_bfloat16_wins_clearly(
    timings, wide, narrow, expected
):
    timings[0].update({("training", False): wide, ("training", True): narrow})
    choice = choose("auto", CPU, "training")
    assert choice.precision == expected
    assert f"fp32 {1000 * wide:.2f} ms, bf16 {1000 * narrow:.2f} ms" in choice.why


def test_training_and_prediction_are_decided_apart_and_remembered(timings):
    """On a processor a prediction must not depend on what stands beside it: nothing is measured."""
    seconds, calls = timings
    seconds.update({("training", False): 2.0, ("training", True): 1.0})
    found = report(CPU)
    assert found["training"]["precision"] == "bf16"
    assert found["prediction"]["precision"] == "fp32"
    assert "same bytes" in found["prediction"]["why"]
    count = len(calls)
    assert report(CPU) == found
    assert len(calls) == count


def test_a_gpu_is_measured_for_predictions_too(timings, monkeypatch):
    seconds, _ = timings
    seconds.update({("prediction", False): 2.0, ("prediction", True): 1.0})
    monkeypatch.setattr(precision, "_block", lambda device: (None, None))
    assert choose("auto", torch.device("cuda"), "prediction").precision == "bf16"
    seconds.update({("prediction", True): 3.0})
    measure.cache_clear()
    assert choose("auto", torch.device("cuda"), "prediction").precision == "fp32"


def test_nothing_is_measured_where_it_is_set_or_where_there_is_no_bfloat16(timings, monkeypatch):
    assert choose("bf16", CPU, "training") == Choice("bf16", "as set")
    assert choose("fp32", CPU, "prediction") == Choice("fp32", "as set")
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    assert choose("auto", CPU, "training").precision == "fp32"
    assert timings[1] == []


def test_a_measurement_draws_no_random_number(monkeypatch):
    monkeypatch.setattr(precision, "BUDGET", 0.0)
    monkeypatch.setattr(precision, "TOKENS", 8)
    before = torch.get_rng_state()
    measure.cache_clear()
    found = measure("cpu", "training")
    measure.cache_clear()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(0 < seconds < float("inf") for seconds in found.values())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"precision": "no"}, "fp32"),
        ({"precision": "bf16"}, "bf16"),
        ({"precision": "fp8"}, None),
        ({}, None),
        ([], None),
    ],
)
def test_a_continued_training_keeps_its_precision(tmp_path, content, expected):
    record = tmp_path / "config.json"
    assert recorded_choice(record) is None
    record.write_text(json.dumps(content))
    choice = recorded_choice(record)
    assert (choice and choice.precision) == expected
