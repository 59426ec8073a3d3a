"""Filling in masks: places, order, long texts, answers that do not fit, and encoders as they
come."""

import json
import re

import pytest
import tokenizers
import torch
from conftest import nlpkit, write_lines

from nlpkit import encoders
from nlpkit.encoders.checkpoint.load import save_encoder
from nlpkit.errors import RecordError, SettingsError
from nlpkit.evaluation.data_check import check_data
from nlpkit.inference.predictor import predict_examples
from nlpkit.tasks.fill_mask import Settings, Task
from nlpkit.text.tokenizer import Tokenizer

SHAPE = encoders.ShapeConfig(layers=1, hidden_size=32, heads=2, intermediate_size=48, max_length=64)


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(3)
    return encoders.for_pretraining(None, SHAPE)


@pytest.fixture
def task(made):
    encoder, backend = made
    return Task(Settings(), encoders.tokenizer_of(encoder, backend), None)


def filled(task, made, text):
    model = task.build_model(made[0]).eval()
    return predict_examples(task, model, [task.read({"text": text})])[0]


def test_a_mask_is_one_token_and_keeps_its_place(task):
    encoding = task.read({"text": "Ａ[MASK]b [MASK][MASK]😀"}).encoding
    (columns,) = (encoding.token_ids_T == task.mask_id).nonzero()
    assert [(encoding.starts_T[c], encoding.ends_T[c]) for c in columns] == [
        (1, 7),
        (9, 15),
        (15, 21),
    ]
    assert len(encoding) == 2 + 3 + 4


@pytest.mark.parametrize("text", ["[MASK]", "中[MASK]国[MASK]", "a[MASK]" * 100])
def test_every_mask_is_filled_and_nothing_else_changes(task, made, text):
    prediction = filled(task, made, text)
    assert [(m.start, m.end) for m in prediction.masks] == [
        m.span() for m in re.finditer(r"\[MASK\]", text)
    ]
    left = text
    for mask in prediction.masks:
        assert len(mask.candidates) == 5
        assert mask.candidates[0].token == mask.token
        assert [c.probability for c in mask.candidates] == sorted(
            (c.probability for c in mask.candidates), reverse=True
        )
        left = left.replace("[MASK]", mask.token, 1)
    assert prediction.text == left


def test_the_surest_mask_is_filled_first_and_the_next_sees_it(task, made):
    model = task.build_model(made[0]).eval()
    seen = []
    plain = model.logits

    def spy(tokens, at_BT):
        seen.append((tokens.token_ids_BT[0].clone(), at_BT[0].clone()))
        return plain(tokens, at_BT)

    model.logits = spy
    (prediction,) = predict_examples(task, model, [task.read({"text": "[MASK]中[MASK]"})])
    (first, open_first), (second, open_second) = seen
    assert open_first.sum() == 2
    assert open_second.sum() == 1
    place = (first != second).nonzero().item()
    with torch.inference_mode():
        batch = task.collate([task.read({"text": "[MASK]中[MASK]"})], targets=False)
        logits_NV = plain(batch.tokens, open_first[None])
        logits_NV[:, task.special] = -torch.inf
        surest = logits_NV.softmax(-1).max(-1).values.argmax().item()
    assert open_first.nonzero()[surest].item() == place


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "没有"}, r"expected \[MASK\]"),
        ({"text": "[MASK]", "answer": "北京"}, "expected 1 tokens, one a mask, got 2"),
        ({"text": "[MASK]", "answer": 3}, "answer"),
    ],
)
def test_what_does_not_fit_is_said(task, record, message):
    with pytest.raises(RecordError, match=message):
        task.read(record)


def test_a_vocabulary_without_masks_is_refused():
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3}
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"),
    )
    with pytest.raises(SettingsError, match=r"no \[MASK\]"):
        Task(Settings(), Tokenizer(backend), None)


def test_an_encoder_is_predicted_with_and_trained_as_it_is(made, tmp_path):
    encoder, backend = made
    (tmp_path / "encoder").mkdir()
    save_encoder(tmp_path / "encoder", encoder, backend)
    data = write_lines(
        tmp_path / "data.jsonl", [{"id": 7, "text": "中[MASK]", "answer": "国"}] * 12
    )
    (line, *_) = nlpkit("predict", tmp_path / "encoder", data).stdout.splitlines()
    assert json.loads(line)["prediction"]["text"].startswith("中")
    out = tmp_path / "run"
    nlpkit("train", "fill-mask", "--data", data, "--dev", data, "--encoder", tmp_path / "encoder", "--out", out,
           "--epochs=30", "--learning-rate=1e-2")  # fmt: skip
    assert json.loads(nlpkit("eval", out, "--data", data).stdout)["accuracy"] == 1.0


def test_an_encoder_without_the_head_is_refused(tmp_path):
    data = write_lines(tmp_path / "data.jsonl", [{"text": "中[MASK]", "answer": "国"}] * 20)
    done = nlpkit(
        "train",
        "fill_mask",
        "--data",
        data,
        "--dev",
        data,
        "--encoder",
        "dgcnn",
        "--out",
        tmp_path / "o",
        check=False,
    )
    assert done.returncode == 2
    assert "dgcnn has no masked-LM head" in done.stderr.decode()


def test_data_check_names_what_is_never_predicted(tmp_path):
    lines = [
        {"text": "[MASK]矿石", "answer": "锶"},
        {"text": "[MASK][MASK]石", "answer": "矿锶"},
        {"text": "[MASK]石", "answer": "矿"},
    ]
    checking = check_data(
        "fill_mask", str(write_lines(tmp_path / "a.jsonl", lines)), None, "tiny", []
    )
    assert [message[:14] for _, _, message in checking] == ["the mask at 0 ", "the mask at 6 "]
    summary = checking.summary()
    assert (summary["facts"], summary["lost"]) == (4, 2)
    assert summary["findings"] == {"never predicted": 2}
