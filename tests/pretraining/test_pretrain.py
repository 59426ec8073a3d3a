"""Pretraining as a whole: exact resume, processes, refusals, and a checkpoint that others read."""

import json
import platform
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from conftest import nlpkit
from small_pretraining import opened, weights, write_bookshops

from nlpkit import encoders
from nlpkit.encoders import RECORD, ShapeConfig, transformer
from nlpkit.encoders.base import encode
from nlpkit.encoders.checkpoint.load import load_encoder, save_encoder
from nlpkit.errors import NlpkitError, SettingsError
from nlpkit.pretraining.resume import finished_summary
from nlpkit.pretraining.settings import PretrainConfig, PretrainPlan
from nlpkit.training.checkpoints import CHECKPOINT

SMALL = {"layers": 1, "hidden_size": 32, "heads": 2, "intermediate_size": 48, "max_length": 64}
FEW = {
    "tokens": 5120,
    "batch_tokens": 512,
    "length": 32,
    "long_share": 0.3,
    "evaluate_every": 1536,
    "precision": "fp32",
}
FLAGS = [f"--set=encoder.{k}={v}" for k, v in SMALL.items()] + [
    f"--set=pretrain.{k}={v}" for k, v in FEW.items()
]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_bookshops(tmp_path_factory.mktemp("text") / "text.txt")


def plan(text, out, **changes):
    return PretrainPlan((text,), out, PretrainConfig(**{**FEW, **changes}), ShapeConfig(**SMALL))


@pytest.fixture(scope="module")
def straight(text, tmp_path_factory):
    """Share of replaced tokens -> (folder of a pretraining that was not stopped, its weights)."""

    @cache
    def made(replaced):
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("straight") / "encoder"
        return folder, weights(opened(plan(text, folder, replaced_share=replaced)))

    return made


@pytest.mark.parametrize(("stop", "replaced"), [(1, 0.0), (3, 0.0), (7, 0.0), (4, 0.5)])
def test_a_resumed_pretraining_equals_a_straight_one_bit_for_bit(
    text, tmp_path, straight, stop, replaced
):
    folder, expected = straight(replaced)
    weights(opened(plan(text, tmp_path / "stopped", replaced_share=replaced)), stop)
    assert (tmp_path / "stopped" / CHECKPOINT).exists()
    again = opened(plan(text, tmp_path / "stopped", replaced_share=replaced))
    assert again.state.step == stop + 1
    found = weights(again)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    files = ("model.safetensors", "metrics.jsonl", "config.json", "tokenizer.json")
    assert all((folder / n).read_bytes() == (tmp_path / "stopped" / n).read_bytes() for n in files)
    assert not (tmp_path / "stopped" / "corpus").exists()


def test_a_pretraining_killed_before_its_first_evaluation_goes_on(
    text, tmp_path, monkeypatch, straight
):
    monkeypatch.setattr("nlpkit.training.checkpoints.EVERY", 0)
    _, expected = straight(0.0)
    for event in opened(plan(text, tmp_path / "killed")).events():
        if event.step == 2:
            break  # as by a kill: nothing more is written
    again = opened(plan(text, tmp_path / "killed"))
    assert again.state.step == 2
    found = weights(again)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_force_overwrites_nothing_before_all_is_known_to_be_right(text, tmp_path):
    out = tmp_path / "run"
    weights(opened(plan(text, out)))
    before = (out / "model.safetensors").read_bytes()
    forced = replace(plan(text, out), force=True)
    for wrong in (replace(forced, texts=("missing.txt",)), replace(forced, start="missing"),
                  replace(forced, start=str(out)), replace(forced, corpus=out / "corpus")):  # fmt: skip
        with pytest.raises(NlpkitError):
            opened(wrong)
        assert (out / "model.safetensors").read_bytes() == before


def test_pieces_of_a_batch_change_nothing(text, tmp_path):
    changes = {"learning_rate": 1e-4, "replaced_share": 0.5}
    whole = weights(opened(plan(text, tmp_path / "one", **changes)))
    cut = weights(opened(plan(text, tmp_path / "two", **changes, max_tokens=100)))
    for name in whole:
        torch.testing.assert_close(whole[name], cut[name], atol=2e-5, rtol=0)


def test_two_processes_equal_one(text, tmp_path):
    found = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        done = nlpkit("encoder", "pretrain", text, "--out", out, *FLAGS, "--set=pretrain.learning_rate=1e-4",
                      "--set=pretrain.replaced_share=0.5", "--processes", processes, "--device=cpu")  # fmt: skip
        assert json.loads(done.stdout)["encoder"] == str(out)
        found.append(safetensors.torch.load_file(out / "model.safetensors"))
    for name in found[0]:  # stored in bfloat16: apart by one rounding at most
        torch.testing.assert_close(
            found[0][name].float(), found[1][name].float(), atol=1e-5, rtol=2**-7
        )


@pytest.mark.parametrize("family", ["roformer", "bert"])
def test_it_learns_and_transformers_reads_the_result(text, tmp_path, family):
    out = tmp_path / "out"
    longer = plan(text, out, tokens=60_000, learning_rate=5e-3, evaluate_every=20_000, average=0.5)
    made = opened(replace(longer, shape=ShapeConfig(**SMALL, family=family)))
    weights(made)
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["masked_perplexity"] < 40  # of 10,000 tokens; the texts are of one form
    assert last["prefix_perplexity"] < 40
    assert "masked_perplexity" in (out / "README.md").read_text()
    own = load_encoder(out, head=True).eval()
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(out, dtype=torch.float32).eval()
    block = made.corpus.held_out[:30]
    batch = made._batch([block], [np.random.default_rng(1)], "masked", 0.3)
    with torch.no_grad():
        ours = own.token_logits(encode(own, batch.tokens))
        expected = theirs(batch.tokens.token_ids_BT).logits
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_it_learns_to_find_replaced_tokens(text, tmp_path):
    """Soon, while the encoder still draws tokens that no text has there."""
    out = tmp_path / "out"
    made = opened(
        plan(text, out, tokens=10_000, learning_rate=5e-3, average=0.5, replaced_share=0.7)
    )
    made.held_out = [
        made._block(made.blocks[0], place) for place in range(64)
    ]  # what is held out is too little
    kinds = [made.steps.kind_of(step)[1] for step in range(1000)]
    assert 200 < kinds.count("prefix") < 300
    assert 650 < kinds.count("replaced") < 750
    assert made.evaluate()["replaced_f1"] < 0.5
    weights(made)
    assert made.evaluate()["replaced_f1"] > 0.9
    assert "replace others" in (out / "README.md").read_text()
    assert not any(
        "detector" in name for name in safetensors.torch.load_file(out / "model.safetensors")
    )


def test_a_pretraining_goes_on_from_an_encoder(text, tmp_path):
    nlpkit(
        "encoder",
        "pretrain",
        text,
        "--out",
        tmp_path / "one",
        *FLAGS,
        "--corpus",
        tmp_path / "corpus",
    )
    assert (tmp_path / "corpus" / "corpus.json").exists()
    nlpkit("encoder", "pretrain", text, "--out", tmp_path / "two", *FLAGS[len(SMALL):], "--start", tmp_path / "one",
           "--corpus", tmp_path / "corpus")  # fmt: skip
    ends = [
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1])
        for name in ("one", "two")
    ]
    assert ends[1]["masked_perplexity"] < ends[0]["masked_perplexity"]
    one, two = (encoders.record_of(str(tmp_path / name)) for name in ("one", "two"))
    assert encoders.stages_of(two) == [one, two]
    assert encoders.tokens_of(two) == one["tokens"] + two["tokens"] == 2 * one["tokens"] > 0
    assert (
        f"which had read {one['tokens']:,} tokens" in (tmp_path / "two" / "README.md").read_text()
    )
    assert one["shape"] == two["shape"]


def test_a_pretraining_goes_on_that_does_not_know_a_setting_that_came_later(text, tmp_path):
    weights(opened(plan(text, tmp_path / "run")), 3)
    path = tmp_path / "run" / RECORD
    record = json.loads(path.read_bytes())
    del record["teacher"]
    for name in ("teacher_weight", "teacher_random", "rates"):
        del record["pretrain"][name]
    path.write_text(json.dumps(record))
    with pytest.raises(SettingsError, match="pretrain.rates is now .*, the run has \\[\\]"):
        opened(plan(text, tmp_path / "run", rates=("embedding=0.1",)))
    assert opened(plan(text, tmp_path / "run")).state.step >= 3


def test_refusals(text, tmp_path):
    weights(opened(plan(text, tmp_path / "run")), 3)
    with pytest.raises(SettingsError, match="pretrain.mask_share"):
        opened(plan(text, tmp_path / "run", mask_share=0.5))
    with pytest.raises(SettingsError, match="unfinished pretraining"):
        opened(replace(plan(text, tmp_path / "run"), resume="never"))
    made = opened(plan(text, tmp_path / "run"))
    weights(made)
    with pytest.raises(SettingsError, match="finished pretraining"):
        opened(plan(text, tmp_path / "run"))
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"of a process that was killed at the very end")
    assert finished_summary(plan(text, tmp_path / "run"), is_main=True) == made.summary()
    assert not (tmp_path / "run" / CHECKPOINT).exists()
    assert finished_summary(plan(text, tmp_path / "none"), is_main=True) is None
    for other in (
        plan(text, tmp_path / "run", mask_share=0.5),
        replace(plan(text, tmp_path / "run"), texts=(f"{text}:0.5",)),
        replace(plan(text, tmp_path / "run"), shape=ShapeConfig(**{**SMALL, "heads": 1})),
    ):
        with pytest.raises(SettingsError, match="holds a finished pretraining: "):
            finished_summary(other, is_main=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(SettingsError, match="no pretraining"):
        opened(replace(plan(text, tmp_path / "mine"), force=True))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set=pretrain.lenght=3"], 2, 'did you mean "length"'),
        (
            ["--set=pretrain.mask_share=1.5"],
            2,
            "pretrain.mask_share: expected a number below 1, got 1.5",
        ),
        (
            ["--set=pretrain.replaced_share=0.8"],
            2,
            "replaced_share: expected less than 1 with prefix_share and span_share",
        ),
        (["--start", "dgcnn"], 2, "no masked-LM head"),
        (["--tokens", "0"], 2, "tokens: expected at least 1"),
        (
            ["--set=pretrain.optimizer=sgd"],
            2,
            "pretrain.optimizer: expected one of adamw, lamb, lion, muon, sgdm, got",
        ),
        (["--set=pretrain.schedule=rising"], 2, "schedule"),
        (
            ["--set=pretrain.length=9999", "--set=pretrain.batch_tokens=9999"],
            2,
            "pretrain.length: expected 8 to 512",
        ),
    ],
)
def test_wrong_settings_are_named(text, tmp_path, arguments, code, message):
    done = nlpkit("encoder", "pretrain", text, "--out", tmp_path / "o", *arguments, check=False)
    assert done.returncode == code
    assert message in done.stderr.decode()


PAGES = """
import random, resource, torch
from nlpkit.inference.devices import keep_freed_memory
assert keep_freed_memory()
sizes = [random.Random(seed).randrange(10 << 20, 20 << 20) for seed in range(20)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for size in sizes:
    torch.ones(size)
print(sum(sizes) * 4 // resource.getpagesize(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_taken_again_without_new_pages():
    written, new = subprocess.run(
        [sys.executable, "-c", PAGES], stdout=subprocess.PIPE, check=True
    ).stdout.split()
    assert int(new) < int(written) / 2  # not none: glibc leaves gaps between aligned blocks


def test_an_encoder_that_cannot_continue_a_prefix_is_refused_at_once(text, tmp_path):
    config = {"model_type": "bert", "type_vocab_size": 1, "vocab_size": 10_000}
    config |= {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config |= {"intermediate_size": 48, "max_position_embeddings": 64}
    start, tokenizer = tmp_path / "start", encoders.load_tokenizer("tiny")
    start.mkdir()
    save_encoder(start, transformer.Encoder(config, head=True), tokenizer.backend)
    asked = replace(plan(text, tmp_path / "out"), start=str(start))
    with pytest.raises(SettingsError, match="cannot tell a source from a target"):
        asked.check()
    replace(asked, config=replace(asked.config, prefix_share=0.0)).check()


def test_a_start_without_a_head_is_taught_a_new_one(text, tmp_path, monkeypatch):
    config = {"model_type": "bert", "type_vocab_size": 2, "vocab_size": 10_000}
    config |= {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config |= {"intermediate_size": 48, "max_position_embeddings": 64}
    start = tmp_path / "start"
    start.mkdir()
    save_encoder(start, transformer.Encoder(config), encoders.load_tokenizer("tiny").backend)
    flags = ["--tokens", "4096", "--set=pretrain.batch_tokens=1024", "--set=pretrain.length=32"]
    rates = '--set=pretrain.rates=["[.]head[.]=2", ".=0"]'
    out = tmp_path / "out"
    done = nlpkit("encoder", "pretrain", text, "--start", start, "--out", out, *flags, rates)
    assert "start has no masked-LM head; a new one starts at random" in done.stderr.decode()
    before, after = load_encoder(start), load_encoder(out, head=True)
    for name, tensor in before.model.state_dict().items():  # the head alone has learned
        assert torch.equal(tensor, after.model.state_dict()[name])
    assert after.head.bias.any()
