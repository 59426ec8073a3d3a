"""Pretraining of an encoder that learns the next token: its batches, exact resume, and what its
directory is good for."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import nlpkit, write_lines
from small_pretraining import opened, weights, write_bookshops

from nlpkit import encoders, samples
from nlpkit.encoders.base import encode
from nlpkit.errors import SettingsError
from nlpkit.pretraining.objectives import Pretrainer, Symbols, next_batch
from nlpkit.pretraining.resume import finished_summary
from nlpkit.pretraining.settings import PretrainConfig, PretrainPlan

CONFIG = encoders.settings_of("on_lstm")
SMALL = {"layers": 2, "hidden_size": 16, "chunk": 4}
FEW = {
    "tokens": 3072,
    "batch_tokens": 512,
    "length": 32,
    "evaluate_every": 1024,
    "precision": "fp32",
}
FLAGS = ["--encoder=on_lstm"]
FLAGS += [f"--set=encoder.{key}={value}" for key, value in SMALL.items()]
FLAGS += [f"--set=pretrain.{key}={value}" for key, value in FEW.items()]
SYMBOLS = Symbols(cls_id=2, sep_id=3, mask_id=4, first=5, vocabulary=50)
KINDS = [("on_lstm", "both"), ("on_lstm", "forward"), ("lstm", "both")]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_bookshops(tmp_path_factory.mktemp("text") / "text.txt")


def plan(text, out, cell="on_lstm", directions="both", **changes):
    shape = CONFIG(cell=cell, directions=directions, **SMALL)
    config = PretrainConfig(**{**FEW, **changes})
    return PretrainPlan((text,), out, config, shape, encoder="on_lstm")


def small_encoder(directions):
    torch.manual_seed(0)
    config = {**SMALL, "directions": directions, "dropout": 0.0}
    return encoders.build({"kind": "on_lstm", "vocabulary": 50, "config": config, "head": True})


@pytest.mark.parametrize(
    ("kind", "directions", "places"),
    [
        ("next", 1, [0, 1, 2, 5, 6, 7]),
        ("next", 2, [0, 2, 4, 10, 12, 14]),
        ("previous", 2, [5, 7, 9, 15, 17, 19]),
    ],
)
def test_the_target_of_a_place_is_the_token_beside_it(kind, directions, places):
    blocks = [np.array([7, 8, 9], np.uint16), np.array([10, 11, 12], np.uint16)]
    batch = next_batch(blocks, kind, directions, SYMBOLS)
    assert batch.tokens.token_ids_BT.tolist() == [[2, 7, 8, 9, 3], [2, 10, 11, 12, 3]]
    assert batch.places_N.tolist() == places
    assert batch.targets_N.tolist() == [7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize("kind", ["next", "previous"])
def test_a_loss_does_not_depend_on_the_token_that_it_asks_for(kind):
    """Nor on those behind it, as the stack reads: then the score would be no probability."""
    model = Pretrainer(small_encoder("both")).eval()
    ids = np.array([7, 8, 9, 10, 11, 12], np.uint16)
    with torch.no_grad():
        before = model.logits(next_batch([ids], kind, 2, SYMBOLS))
        for place in range(len(ids)):
            other = ids.copy()
            other[place] = 40
            after = model.logits(next_batch([other], kind, 2, SYMBOLS))
            same = range(place + 1) if kind == "next" else range(place, len(ids))
            differs = range(place + 1, len(ids)) if kind == "next" else range(place)
            assert all(torch.equal(before[one], after[one]) for one in same)
            assert not any(torch.equal(before[one], after[one]) for one in differs)


def test_a_batch_of_both_is_the_two():
    model = Pretrainer(small_encoder("both"))
    blocks = [np.arange(5, 17, dtype=np.uint16), np.arange(20, 32, dtype=np.uint16)]
    losses = {
        kind: model(next_batch(blocks, kind, 2, SYMBOLS)) for kind in ("next", "previous", "both")
    }
    apart = torch.cat([losses["next"], losses["previous"]]).sort().values
    torch.testing.assert_close(losses["both"].sort().values, apart)


@pytest.mark.parametrize(("cell", "directions"), KINDS)
def test_a_resumed_pretraining_equals_a_straight_one_bit_for_bit(text, tmp_path, cell, directions):
    folders = [tmp_path / "straight", tmp_path / "stopped"]
    expected = weights(opened(plan(text, folders[0], cell, directions)))
    weights(opened(plan(text, folders[1], cell, directions)), 2)
    again = opened(plan(text, folders[1], cell, directions))
    assert again.state.step == 3
    found = weights(again)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for name in ("model.safetensors", "metrics.jsonl", "config.json", "tokenizer.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    done = finished_summary(plan(text, folders[1], cell, directions), is_main=True)
    assert done == again.summary()
    other = plan(text, folders[1], cell, directions)
    with pytest.raises(SettingsError, match="holds a finished pretraining: "):
        finished_summary(replace(other, shape=replace(other.shape, chunk=2)), is_main=True)


def test_it_learns_and_its_directory_gives_the_same_scores(text, tmp_path):
    out = tmp_path / "out"
    made = opened(
        plan(text, out, tokens=40_000, evaluate_every=20_000, learning_rate=1e-2, average=0.5)
    )
    weights(made)
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["next_perplexity"] < 60  # of 10,000 tokens; the texts are of one form
    assert last["previous_perplexity"] < 60
    card = (out / "README.md").read_text()
    assert f"| next_perplexity | {last['next_perplexity']} |" in card
    assert "nlpkit's own format" in card
    encoder, _ = encoders.for_pretraining(str(out), encoders.ShapeConfig())
    model = Pretrainer(encoder.eval())
    batch = next_batch(made.held_out, "next", 2, made.symbols)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model.logits(batch), batch.targets_N)
    assert math.exp(loss) == pytest.approx(last["next_perplexity"], rel=0.02)  # in bfloat16


def test_two_processes_equal_one(text, tmp_path):
    found = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        few = ["--set=pretrain.learning_rate=1e-4", "--processes", processes, "--device=cpu"]
        nlpkit("encoder", "pretrain", text, "--out", out, *FLAGS, *few)
        found.append(safetensors.torch.load_file(out / "model.safetensors"))
    for name in found[0]:  # stored in bfloat16: apart by one rounding at most
        torch.testing.assert_close(
            found[0][name].float(), found[1][name].float(), atol=1e-5, rtol=2**-7
        )


@pytest.fixture(scope="module")
def folder(text, tmp_path_factory):
    """The directory that the command makes."""
    out = tmp_path_factory.mktemp("made") / "on_lstm"
    nlpkit("encoder", "pretrain", text, "--out", out, *FLAGS)
    return out


def test_a_task_starts_from_its_directory(folder, tmp_path):
    data = write_lines(tmp_path / "data.jsonl", samples.records("ner", 40, seed=1))
    files = ["--data", data, "--dev", data, "--out", tmp_path / "run"]
    nlpkit("train", "ner", *files, "--encoder", folder, "--epochs=1")
    config = json.loads((tmp_path / "run" / "config.json").read_bytes())
    assert config["encoder"]["spec"]["kind"] == "on_lstm"
    assert len(nlpkit("predict", tmp_path / "run", data).stdout.splitlines()) == 40
    trees = nlpkit("encoder", "tree", tmp_path / "run", data).stdout.splitlines()
    assert "entities" in json.loads(trees[0])
    stored = safetensors.torch.load_file(folder / "model.safetensors")
    encoder, tokenizer = encoders.load(str(folder), encoders.settings_of(str(folder))())
    assert encoder.learns_as == "pretrained"
    state = encoder.state_dict()
    assert all(torch.equal(state[name], stored[name].float()) for name in state)
    assert encode(encoder, tokenizer.collate([tokenizer.encode("好")])).shape[-1] == 32


def test_a_pretraining_goes_on_from_it(text, folder, tmp_path):
    settings = [flag for flag in FLAGS if "pretrain." in flag]
    nlpkit("encoder", "pretrain", text, "--out", tmp_path / "two", *settings, "--start", folder)
    ends = [
        json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])["next_perplexity"]
        for path in (folder, tmp_path / "two")
    ]
    assert ends[1] < ends[0]


def test_what_it_is(folder):
    told = json.loads(nlpkit("encoder", "info", folder).stdout)
    assert told["architecture"] == "on_lstm"
    assert told["format"] == "nlpkit"
    assert told["spec"]["config"]["hidden_size"] == 16
    assert told["tokens"] == 3072
    assert told["held_out"]["next_perplexity"] > 1


def test_what_it_cannot_do_is_told(folder, text, tmp_path):
    line = '{"text": "中国的首都是[MASK][MASK]。"}'.encode()
    done = nlpkit("predict", folder, stdin=line, check=False)
    assert done.returncode == 2
    assert "has no masked-LM head" in done.stderr.decode()
    for arguments, message in (
        (["--encoder=dgcnn"], "--encoder: dgcnn is not pretrained"),
        (["--encoder=tiny"], "no encoder with random weights has this name: tiny"),
        (["--encoder=on_lstm", "--start=tiny"], "--encoder: expected none with --start"),
        ([*FLAGS, "--set=pretrain.replaced_share=0.3"], "pretrain.replaced_share: not for this"),
        ([*FLAGS, "--set=encoder.chunk=5"], "chunk: expected a divisor of 16, got 5"),
        ([*FLAGS, "--set=encoder.heads=5"], "heads"),
    ):
        wrong = nlpkit(
            "encoder", "pretrain", text, "--out", tmp_path / "o", *arguments, check=False
        )
        assert wrong.returncode == 2, arguments
        assert message in wrong.stderr.decode()


def test_damaged_files_are_named(folder, tmp_path):
    config = json.loads((folder / "config.json").read_bytes())
    stored = safetensors.torch.load_file(folder / "model.safetensors")
    weight = "stacks.0.0.weight"
    cases = [
        ({"vocab_size": "x"}, {}, 'no "vocab_size"'),
        ({"vocab_size": 99999}, {}, "characters.weight: expected"),
        ({"config": {"chunk": 5}}, {}, "make no encoder of the kind on_lstm"),
        ({"model_type": "onlstm"}, {}, 'unknown kind of encoder "onlstm"'),
        ({}, {weight: None}, f"tensors are missing: {weight}"),
        ({}, {"more": stored[weight].clone()}, "tensors have no place: more"),
        ({}, {weight: stored[weight] * math.nan}, f"{weight}: not all of its numbers are finite"),
    ]
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    for settings, tensors, message in cases:
        (tmp_path / "config.json").write_text(json.dumps({**config, **settings}))
        changed = {**stored, **tensors}
        kept = {name: tensor for name, tensor in changed.items() if tensor is not None}
        safetensors.torch.save_file(kept, tmp_path / "model.safetensors")
        with pytest.raises(SettingsError, match=message):
            encoders.load(str(tmp_path), encoders.settings_of(str(tmp_path))())
