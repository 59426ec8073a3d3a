"""Pretraining of encoders of other parts: by the command, resumed exactly, and what becomes of
their checkpoints."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import nlpkit, write_lines
from small_pretraining import opened, weights, write_bookshops

from nlpkit import encoders, samples
from nlpkit.errors import SettingsError
from nlpkit.pretraining.resume import finished_summary
from nlpkit.pretraining.settings import PretrainConfig, PretrainPlan

SMALL = {"layers": 1, "hidden_size": 16, "heads": 2, "intermediate_size": 24, "max_length": 64}
FEW = {
    "tokens": 3072,
    "batch_tokens": 512,
    "length": 32,
    "evaluate_every": 1024,
    "precision": "fp32",
    "prefix_share": 0.0,
}
PARTS = {
    "attention": "performer",
    "features": 8,
    "redraw": 2,
    "residual": "scheduled",
    "warm_up": 8,
    "norm": "rms",
    "activation": "sau(2)",
    "initialisation": "ntk",
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_bookshops(tmp_path_factory.mktemp("text") / "text.txt")


def plan(text, out, parts=PARTS, **changes):
    shape = encoders.ShapeConfig(**SMALL, **parts)
    return PretrainPlan((text,), out, PretrainConfig(**{**FEW, **changes}), shape)


def test_a_resumed_pretraining_equals_a_straight_one_bit_for_bit(text, tmp_path):
    folders = [tmp_path / "straight", tmp_path / "stopped"]
    expected = weights(opened(plan(text, folders[0])))
    weights(opened(plan(text, folders[1])), 2)
    again = opened(plan(text, folders[1]))
    assert again.state.step == 3
    found = weights(again)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    counted = [tensor for name, tensor in found.items() if name.endswith(".steps")]
    assert [int(tensor) for tensor in counted] == [6, 6]
    for name in ("model.safetensors", "metrics.jsonl", "config.json", "tokenizer.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert finished_summary(plan(text, folders[1]), is_main=True) == again.summary()
    for other in ({}, {**PARTS, "features": 9}, {**PARTS, "activation": "sau(3)"}):
        shape = encoders.ShapeConfig(**SMALL, **other)
        with pytest.raises(SettingsError, match="holds a finished pretraining: "):
            finished_summary(replace(plan(text, folders[1]), shape=shape), is_main=True)


def test_performer_asks_for_no_prefixes(text, tmp_path):
    with pytest.raises(SettingsError, match=r"pretrain\.prefix_share: expected 0, .* got 0\.25"):
        plan(text, tmp_path / "out", prefix_share=0.25).check()


def test_an_encoder_made_by_the_command_is_used_like_any_other(text, tmp_path):
    folder = tmp_path / "encoder"
    flags = [f"--set=encoder.{name}={value}" for name, value in {**SMALL, **PARTS}.items()]
    flags += [f"--set=pretrain.{name}={value}" for name, value in FEW.items()]
    done = json.loads(nlpkit("encoder", "pretrain", text, "--out", folder, *flags).stdout)
    assert done["masked_perplexity"] > 1
    assert "prefix_perplexity" not in done
    assert "nlpkit's own format" in (folder / "README.md").read_text(encoding="utf-8")
    shape = json.loads((folder / "config.json").read_bytes())["config"]
    assert shape["hidden_act"] == "sau(2)"
    expected = {name: value for name, value in PARTS.items() if name != "activation"}
    assert shape["parts"] == expected
    line = json.dumps({"text": "王小明在[MASK]京开了一家书店。"}).encode() + b"\n"
    filled = json.loads(nlpkit("predict", folder, stdin=line).stdout)
    assert filled["prediction"]
    data = write_lines(tmp_path / "data.jsonl", samples.records("ner", 40, seed=1))
    files = ["--data", data, "--dev", data, "--out", tmp_path / "run"]
    nlpkit("train", "ner", *files, "--encoder", folder, "--epochs=1")
    config = json.loads((tmp_path / "run" / "config.json").read_bytes())
    assert config["encoder"]["spec"]["config"]["parts"] == expected
    assert len(nlpkit("predict", tmp_path / "run", data).stdout.splitlines()) == 40
