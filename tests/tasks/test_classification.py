"""Classification: labels as they come, long texts, scores by hand, and 10,000 labels."""

import json
import time

import pytest
import torch
from conftest import SMALL, SMALL_FLAGS, nlpkit, write_lines

from nlpkit import encoders, samples
from nlpkit.errors import DataError, RecordError, SettingsError
from nlpkit.inference.devices import accelerator_for
from nlpkit.inference.predictor import predict_examples
from nlpkit.layers.taylor_softmax import taylor_softmax
from nlpkit.run import load
from nlpkit.tasks.classification import Prediction, Settings, Task
from nlpkit.training.distributions import recorded_outputs
from nlpkit.training.loop import Evaluation, Step
from nlpkit.training.multitask.fit import refuse_coupled
from nlpkit.training.plan import Plan
from nlpkit.training.resume import open_fit

SHAPE = encoders.ShapeConfig(layers=1, hidden_size=32, heads=2, intermediate_size=48, max_length=64)


def make(folder, records, **settings):
    """(task, model) for some records."""
    encoder, backend = encoders.for_pretraining(None, SHAPE)
    config = Task.prepare(Settings(**settings), enumerate(records), folder)
    task = Task(config, encoders.tokenizer_of(encoder, backend), folder)
    return task, task.build_model(encoder).eval()


def test_labels_are_strings_or_whole_numbers(tmp_path):
    task, _ = make(
        tmp_path, [{"text": "好", "label": 1}, {"text": "坏", "label": "0"}, {"text": "没有"}]
    )
    assert task.labels == ["0", "1"]
    assert (
        task.read({"text": "好", "label": 1}).gold
        == task.read({"text": "好", "label": "1"}).gold
        == Prediction("1")
    )
    for label in (True, 1.5, [], " ", {"a": 1}):
        with pytest.raises(RecordError, match='field "label": expected a string or a whole number'):
            task.read({"text": "好", "label": label})


def test_data_without_a_label_is_refused(tmp_path):
    with pytest.raises(DataError, match="no line has a label"):
        Task.prepare(Settings(), [("f:1", {"text": "好"})], tmp_path)
    with pytest.raises(DataError, match="f:2: field"):
        Task.prepare(Settings(), [("f:1", {"label": "a"}), ("f:2", {"label": 1.5})], tmp_path)


def test_scores_by_hand(tmp_path):
    task, _ = make(tmp_path, [{"text": "", "label": label} for label in "abc"])
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("b", "c")]
    metrics = task.score((Prediction(gold), Prediction(found)) for gold, found in pairs)
    assert metrics["accuracy"] == 0.5
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-6)  # c is in no gold


def test_a_long_text_has_the_mean_of_its_windows_weighted_by_their_tokens(tmp_path):
    task, model = make(tmp_path, [{"text": "", "label": label} for label in "abc"], max_length=32)
    torch.nn.init.normal_(model.classifier.weight, std=2)
    example = task.read(
        {"text": "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨"}
    )
    windows = task.windows(example)
    assert len(windows) > 1
    p_WL = model.logits(task.collate(windows, targets=False).tokens).softmax(1)
    weight_W = torch.tensor([len(window) for window in windows], dtype=torch.float32)
    expected = (weight_W / weight_W.sum()) @ p_WL
    (prediction,) = predict_examples(task, model, [example])
    found = {candidate.label: candidate.score for candidate in prediction.candidates}
    assert [found[label] for label in "abc"] == pytest.approx(expected.tolist(), abs=1e-4)
    assert prediction.score == max(found.values())


def test_padding_does_not_count(tmp_path):
    task, model = make(tmp_path, [{"text": "", "label": label} for label in "ab"])
    examples = [task.read({"text": text}) for text in ("好", "好" * 40)]
    together = model.logits(task.collate(examples, targets=False).tokens)
    alone = model.logits(task.collate(examples[:1], targets=False).tokens)
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)


def test_ten_thousand_labels(tmp_path):
    task, model = make(
        tmp_path, [{"text": str(n), "label": n} for n in range(10_000)], candidates=3
    )
    start = time.monotonic()
    (prediction,) = predict_examples(task, model, [task.read({"text": "好"})])
    assert time.monotonic() - start < 10
    assert len(prediction.candidates) == 3
    assert len(task.labels) == 10_000


def test_data_check_names_labels_that_training_has_not(tmp_path):
    data = write_lines(
        tmp_path / "a.jsonl", [{"text": "好", "label": "x"}, {"text": " ", "label": "x"}]
    )
    dev = write_lines(
        tmp_path / "b.jsonl", [{"text": "坏", "label": "y"}, {"text": "坏"}, {"label": "x"}]
    )
    done = nlpkit("data", "check", "classification", data, "--dev", dev, check=False)
    summary = json.loads(done.stdout)
    assert done.returncode == 3
    assert summary["findings"] == {
        "empty text": 1,
        "unknown label": 1,
        "no gold": 1,
        "unreadable": 1,
    }
    assert (summary["facts"], summary["lost"]) == (3, 1)


def test_it_trains_and_predicts_from_the_command_line(tmp_path):
    lines = nlpkit("data", "sample", "classification", "--count", 200).stdout
    (tmp_path / "data.jsonl").write_bytes(lines)
    run = tmp_path / "run"
    flags = [
        "--set=train.learning_rate=1e-2",
        "--set=train.precision=fp32",
        "--epochs=4",
        *SMALL_FLAGS,
    ]
    nlpkit("train", "classification", "--data", tmp_path / "data.jsonl", "--out", run, *flags)
    metrics = json.loads(nlpkit("eval", run, "--data", tmp_path / "data.jsonl").stdout)
    assert metrics["accuracy"] > 0.9
    assert metrics["macro_f1"] > 0.9
    out = nlpkit(
        "predict", run, stdin='{"text": "下次还来！", "id": 7}\n{"text": ""}\n'.encode()
    ).stdout.splitlines()
    first = json.loads(out[0])
    assert first["id"] == 7
    assert first["prediction"]["label"] == "好评"
    assert len(out) == 2


def computed(lines, out, **train):
    """A fit of a computed classifier."""
    values = {"precision": "fp32", **train}
    sections = {
        "train": values,
        "encoder": SMALL,
        "classification": {"head": "closed_form"},
    }
    plan = Plan(
        "classification", (str(lines),), out, encoder="dgcnn", values=(sections,), device="cpu"
    )
    return open_fit(plan, accelerator_for("cpu", "fp32"))


def test_a_computed_classifier_takes_one_step_and_leaves_the_encoder(tmp_path):
    data = write_lines(
        tmp_path / "data.jsonl", list(samples.records("classification", 300, seed=1))
    )
    fit = computed(data, tmp_path / "run")
    before = {name: tensor.clone() for name, tensor in fit.run.model.encoder.state_dict().items()}
    step, evaluation = fit.events()
    assert isinstance(step, Step)
    assert isinstance(evaluation, Evaluation)
    assert (step.step, step.steps, step.examples) == (1, 1, len(fit.examples))
    for name, tensor in fit.run.model.encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert evaluation.metrics["accuracy"] > 0.7
    again = load(tmp_path / "run")
    example = again.task.read({"text": "下次还来！"})
    (prediction,) = predict_examples(again.task, again.model, [example])
    assert prediction.label == "好评"
    cut = computed(data, tmp_path / "cut", max_tokens=64, seed=1)
    list(cut.events())
    torch.testing.assert_close(
        cut.run.model.state_dict(), fit.run.model.state_dict(), rtol=1e-3, atol=1e-3
    )
    with pytest.raises(SettingsError, match="computed, not trained"):
        refuse_coupled("classification", fit.run)


@pytest.mark.parametrize("setting", [{"epochs": 3}, {"techniques": ["flooding(level=0.1)"]}])
def test_a_computed_classifier_refuses_settings_of_training(tmp_path, setting):
    data = write_lines(
        tmp_path / "data.jsonl", list(samples.records("classification", 300, seed=1))
    )
    with pytest.raises(SettingsError, match=f"train.{next(iter(setting))}: .*computed, not train"):
        computed(data, tmp_path / "run", **setting)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_bottleneck_costs_its_nats_and_none_changes_nothing(tmp_path):
    records = [{"text": text, "label": text} for text in ("好", "坏")]
    torch.manual_seed(0)
    task, plain = make(tmp_path, records)
    torch.manual_seed(0)
    _, without = make(tmp_path, records, vib=0)
    torch.manual_seed(0)
    _, model = make(tmp_path, records, vib=0.5)
    batch = task.collate([task.read(record) for record in records])
    assert type(without) is type(plain)
    assert torch.equal(without(batch), plain(batch))
    z_BP, kl_B = model.bottleneck(model.pooled(batch.tokens))
    own_B = torch.nn.functional.cross_entropy(
        model.classifier(z_BP), batch.labels_B, reduction="none"
    )
    torch.testing.assert_close(model(batch), own_B + 0.5 * kl_B)
    torch.testing.assert_close(model.logits(batch.tokens), model.classifier(z_BP))
    with recorded_outputs(model) as found:  # as R-Drop compares them
        model(batch)
    (outputs,) = found
    expected_BL = model.logits(batch.tokens).log_softmax(1)
    torch.testing.assert_close(model.log_probs(outputs), expected_BL[:, None])
    model.train()
    assert not torch.equal(model(batch), model(batch))
    model(batch).sum().backward()
    assert all(parameter.grad is not None for parameter in model.bottleneck.parameters())
    with pytest.raises(SettingsError, match="classification.vib: nothing is trained"):
        make(tmp_path, records, vib=0.5, head="closed_form")


@pytest.mark.parametrize("more", [{}, {"vib": 0.5}, {"gan": 1.0}])
def test_a_taylor_softmax_stands_for_the_softmax(tmp_path, more):
    records = [{"text": text, "label": text} for text in "好坏中"]
    task, model = make(tmp_path, records, taylor=4, **more)
    torch.nn.init.normal_(model.classifier.weight)
    batch = task.collate([task.read(record) for record in records])
    features_BP = model.pooled(batch.tokens)
    if "vib" in more:
        features_BP, _ = model.bottleneck(features_BP)
    score_BL = torch.nn.functional.linear(features_BP, *model.classifier.parameters())
    expected_BL = taylor_softmax(score_BL, 4)
    torch.testing.assert_close(model.logits(batch.tokens).softmax(1), expected_BL)
    if not more:
        own_B = -expected_BL[torch.arange(3), batch.labels_B].log()
        torch.testing.assert_close(model(batch), own_B)
    for prediction, p_L in zip(task.decode(model, batch), expected_BL, strict=True):
        assert prediction.score == pytest.approx(p_L.max().item(), abs=1e-5)
    with pytest.raises(SettingsError, match="classification.taylor: nothing is trained"):
        make(tmp_path, records, taylor=2, head="closed_form")


def test_no_taylor_softmax_changes_no_bit(tmp_path):
    records = [{"text": text, "label": text} for text in "好坏"]
    models = []
    for settings in ({}, {"taylor": 0}):
        torch.manual_seed(0)
        models.append(make(tmp_path, records, **settings)[1])
    assert type(models[0].classifier) is type(models[1].classifier) is torch.nn.Linear
    assert torch.equal(models[0].classifier.weight, models[1].classifier.weight)
