"""The masked-LM head of a checkpoint, and an encoder saved as one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from checkpoints import (
    VOCABULARY,
    Save,
    Tokens,
    edit_weights,
    saver,
    to_pickle,
)
from conftest import nlpkit

from nlpkit import run
from nlpkit.encoders import encode
from nlpkit.encoders.checkpoint.load import inspect, load_encoder, load_tokenizer, save_encoder
from nlpkit.errors import SettingsError
from nlpkit.inference.predictor import predict_examples

save = pytest.fixture(saver)


@pytest.mark.parametrize(
    ("class_name", "settings"),
    [
        ("BertForMaskedLM", {}),
        ("ErnieForMaskedLM", {"use_task_id": True, "type_vocab_size": 4}),
        ("ElectraForMaskedLM", {"embedding_size": 16}),
        ("RoFormerForMaskedLM", {"embedding_size": 16}),
    ],
)
def test_the_masked_lm_head_gives_the_logits_of_transformers(
    save: Save, class_name: str, settings: dict
) -> None:
    folder = save(class_name, **settings)
    encoder = load_encoder(folder, head=True).eval()
    theirs = getattr(transformers, class_name).from_pretrained(folder).eval()
    token_ids_BT = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(2))
    whole_BT = torch.ones_like(token_ids_BT)
    with torch.no_grad():
        own_BTV = encoder.token_logits(
            encode(encoder, Tokens(token_ids_BT, 0 * whole_BT, whole_BT.bool()))
        )
        expected_BTV = theirs(token_ids_BT, attention_mask=whole_BT).logits
    torch.testing.assert_close(own_BTV, expected_BTV, rtol=0, atol=1e-5)
    assert encoder.spec()["head"] is True


def test_a_head_that_is_missing_or_not_tied_is_an_error(save: Save) -> None:
    folder = save("BertModel")
    with pytest.raises(SettingsError, match="no masked-LM head, which is needed here: no bias"):
        load_encoder(folder, head=True)
    with pytest.raises(SettingsError, match="built without its masked-LM head"):
        load_encoder(folder).token_logits(torch.zeros(1, 32))
    folder = save("BertForMaskedLM")
    edit_weights(
        folder, lambda weights: {**weights, "cls.predictions.decoder.weight": torch.ones(60, 32)}
    )
    with pytest.raises(SettingsError, match="is not the embeddings"):
        load_encoder(folder, head=True)


def test_a_pretraining_gives_a_checkpoint_without_a_head_a_new_one(save: Save) -> None:
    folder = save("BertModel")
    encoder = load_encoder(folder, head=True, new_head=True)
    assert encoder.head_is_new
    body = load_encoder(folder).model.state_dict()
    for name, tensor in encoder.model.state_dict().items():
        assert torch.equal(tensor, body[name])
    assert encoder.token_logits(torch.zeros(1, 32)).shape == (1, 60)
    folder = save("BertForMaskedLM")
    own = load_encoder(folder, head=True)
    kept = load_encoder(folder, head=True, new_head=True)
    assert not kept.head_is_new
    for name, tensor in own.head.state_dict().items():
        assert torch.equal(tensor, kept.head.state_dict()[name])
    edit_weights(
        folder,
        lambda weights: {
            name: tensor
            for name, tensor in weights.items()
            if name != "cls.predictions.transform.dense.bias"
        },
    )
    with pytest.raises(SettingsError, match="needed here: no dense.bias"):
        load_encoder(folder, head=True, new_head=True)


def test_a_saved_encoder_is_a_checkpoint_of_its_own(save: Save, tmp_path: Path) -> None:
    encoder, backend = load_encoder(save("BertForMaskedLM"), head=True), load_tokenizer(tmp_path)
    again = tmp_path / "again"
    again.mkdir()
    save_encoder(again, encoder, backend)
    report = inspect(again)
    assert (report.problems, report.disagreements, report.dtype) == ([], [], "bfloat16")
    loaded = load_encoder(again, head=True)
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(
            tensor, encoder.state_dict()[name].bfloat16().float(), rtol=0, atol=0
        )


def test_an_embedding_without_a_token_is_never_predicted(save: Save) -> None:
    folder, tokens = save("BertForMaskedLM"), len(VOCABULARY)

    def make_likely(weights: dict) -> dict:
        weights["cls.predictions.bias"][tokens:] = 50.0
        return weights

    edit_weights(folder, make_likely)
    assert inspect(folder).limits == [
        f"{60 - tokens} of 60 embeddings have no token and are never predicted"
    ]
    filled = run.load(folder)
    example = filled.task.read({"text": "中[MASK]人"})
    candidates = predict_examples(filled.task, filled.model, [example])[0].masks[0].candidates
    assert all(candidate.token in VOCABULARY for candidate in candidates)
    logits_NV = filled.model.encoder.token_logits(torch.randn(4, 32))
    assert (logits_NV.softmax(-1)[:, tokens:] == 0).all()


def test_the_hint_for_a_pickle_is_a_command_that_works(save: Save, tmp_path: Path) -> None:
    folder, text = save("BertForMaskedLM"), tmp_path / "text.txt"
    to_pickle(folder)
    flag = "--set=encoder.pickle=true"
    line = '{"text": "中[MASK]人"}'.encode()
    refused = nlpkit("predict", folder, stdin=line, check=False)
    assert refused.returncode == 2
    assert flag.replace("--set=", "--set ") in refused.stderr.decode()
    assert b"prediction" in nlpkit("predict", folder, flag, stdin=line).stdout
    lines = [f"中国人在北京大学 {number}" for number in range(5000)]
    text.write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "out"
    command = ["encoder", "pretrain", text, "--start", folder, "--out", out, "--tokens", 64]
    sizes = ["--set=pretrain.length=16", "--set=pretrain.batch_tokens=32", "--seed=1"]
    assert nlpkit(*command, *sizes, check=False).returncode == 2
    nlpkit(*command, *sizes, flag)
    assert (out / "model.safetensors").exists()
