"""The encoder that ships: small, offline, what its record says, and sane."""

import json
from pathlib import Path

import pytest
import torch
from conftest import nlpkit

from nlpkit import encoders, run
from nlpkit.encoders.catalogue import shipped
from nlpkit.encoders.checkpoint.load import inspect
from nlpkit.inference.predictor import predict_examples
from nlpkit.jsonl import read_jsonl
from nlpkit.training.settings import TrainConfig

SANITY = Path(__file__).parents[1] / "golden" / "fill_mask" / "sanity.jsonl"


def test_it_is_small_and_whole():
    report = inspect(encoders.TINY)
    assert (report.problems, report.disagreements, report.architecture) == ([], [], "roformer")
    assert report.bytes <= 16 * 2**20
    assert report.claimed == {"model_type": "roformer", "architectures": ["RoFormerForMaskedLM"]}


def test_it_is_what_its_record_says():
    record = json.loads((encoders.TINY / "pretraining.json").read_bytes())
    made = shipped()["tiny"]
    stages = encoders.stages_of(record)
    assert [stage["tokens"] for stage in made["stages"]] == [stage["tokens"] for stage in stages]
    assert made["tokens"] == sum(stage["tokens"] for stage in stages) > 0
    assert made["steps"] >= record["reached"]["step"] > 0
    assert made["held_out"]["masked_perplexity"] == record["reached"]["masked_perplexity"]
    assert record["vocabulary_sha256"] == inspect(encoders.TINY).vocabulary_sha256
    assert str(record["reached"]["masked_perplexity"]) in (encoders.TINY / "README.md").read_text(
        encoding="utf-8"
    )
    assert json.loads(nlpkit("encoder", "list").stdout)["tiny"] == made


def test_it_fills_in_sentences_that_it_has_not_seen():
    tiny = run.load("tiny")
    examples = [tiny.task.read(record) for _, record in read_jsonl([SANITY])]
    predictions = predict_examples(tiny.task, tiny.model, examples)
    assert len(examples) > 20
    metrics = tiny.task.score((e.gold, p) for e, p in zip(examples, predictions, strict=True))
    assert metrics["accuracy"] >= 0.45  # random weights: 0


def test_random_weights_are_asked_for_by_name():
    config = encoders.settings_of("tiny")
    trained, _ = encoders.load("tiny", config())
    random, _ = encoders.load("tiny", config(random=True))
    assert trained.spec() == random.spec()
    for (name, one), other in zip(
        trained.state_dict().items(), random.state_dict().values(), strict=True
    ):
        if "weight" in name and "LayerNorm" not in name:
            assert not torch.equal(one, other), name


@pytest.mark.parametrize(
    ("settings", "optimizer", "rate"),
    [
        ({}, "muon", 1e-3),
        ({"optimizer": "adamw"}, "adamw", 3e-4),
        ({"learning_rate": 2e-4}, "muon", 2e-4),
    ],
)
def test_it_learns_by_the_optimizer_that_made_it(settings, optimizer, rate):
    encoder, _ = encoders.load("tiny", encoders.settings_of("tiny")())
    completed = TrainConfig(**settings).completed(encoder.learns_as)
    assert (completed.optimizer, completed.learning_rate) == (optimizer, rate)


@pytest.mark.parametrize("encoder", ["tiny", str(encoders.TINY)])
def test_predict_takes_it_by_name_and_by_folder(encoder):
    line = json.dumps({"id": 1, "text": "中国的首都是[MASK][MASK]。"}).encode()
    done = json.loads(nlpkit("predict", encoder, stdin=line).stdout)
    assert done["id"] == 1
    assert [mask["start"] for mask in done["prediction"]["masks"]] == [6, 12]
