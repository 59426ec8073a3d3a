"""The latent variant of cln: its loss in parts, annealing, what z is good for, texts between two
texts."""

import json
from functools import partial

import pytest
import torch
from conftest import nlpkit

from nlpkit import encoders
from nlpkit.errors import RecordError
from nlpkit.inference.predictor import predict_examples
from nlpkit.layers.vae import Latent, divergence
from nlpkit.run import Run, load
from nlpkit.tasks.cln.task import Settings, Task
from nlpkit.text.backend import vocabulary_hash

TEXTS = ["云在山上走。", "月亮落下去了！", "他没有来", "雨停了，船开了。"]


def make(folder, records, **settings):
    torch.manual_seed(0)
    shape = encoders.ShapeConfig(
        layers=1, hidden_size=32, heads=2, intermediate_size=48, max_length=64, dropout=0.0
    )
    encoder, backend = encoders.for_pretraining(None, shape)
    config = Settings(latent=8, max_length=12, annealing=600, free=1.0, **settings)
    config = Task.prepare(config, [(f"f:{n}", record) for n, record in enumerate(records)], folder)
    task = Task(config, encoders.tokenizer_of(encoder, backend), folder)
    return task, task.build_model(encoder), encoder


def test_the_divergence_is_that_of_two_normal_distributions():
    mean, log_variance = torch.randn(3, 5).double(), torch.randn(3, 5).double()
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    p = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(
        divergence(mean, log_variance), torch.distributions.kl_divergence(q, p)
    )


def test_cost_is_annealed_and_free_up_to_a_bound():
    latent = Latent(4, 3, 2, free=0.5, annealing=10).train()
    mean_BZ, log_variance_BZ = torch.tensor([[2.0, 0.0, 0.1]] * 4), torch.zeros(4, 3)
    costs = []
    for _ in range(5):
        costs.append(latent.cost(mean_BZ, log_variance_BZ)[0].item())
        assert latent.cost(mean_BZ[:1], log_variance_BZ[:1])[0].item() == costs[-1]  # in any pieces
        latent.count_examples(4)
    whole = 2.0 + 0.5 + 0.5
    assert costs == pytest.approx([0.0, 0.4 * whole, 0.8 * whole, whole, whole])
    assert latent.eval().cost(mean_BZ, log_variance_BZ)[0].item() == pytest.approx(2.0 + 0.005)
    assert latent.seen == 20  # evaluation does not count


def test_a_draw_has_the_mean_and_the_variance_of_the_posterior():
    latent = Latent(4, 2, 2, 0.0, 1).train()
    mean_BZ, log_variance_BZ = (
        torch.tensor([[3.0, -1.0]] * 20_000),
        torch.tensor([[0.0, 2.0]] * 20_000),
    )
    z_BZ = latent.draw(mean_BZ, log_variance_BZ)
    torch.testing.assert_close(z_BZ.mean(0), mean_BZ[0], atol=0.1, rtol=0)
    torch.testing.assert_close(z_BZ.var(0), log_variance_BZ[0].exp(), atol=0.3, rtol=0)
    assert torch.equal(latent.eval().draw(mean_BZ, log_variance_BZ), mean_BZ)


@pytest.fixture(scope="module", params=[None, 4], ids=["numbers", "categories"])
def trained(tmp_path_factory, request):
    """(task, model, folder) that knows four texts without any label by heart, each by its z."""
    folder = tmp_path_factory.mktemp("run")
    records = [{"text": text} for text in TEXTS]
    task, model, encoder = make(folder, records, top_k=1, categories=request.param)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batch = task.collate([task.read({"text": text}) for text in TEXTS])
    for _ in range(200):
        optimizer.zero_grad()
        model.train()(batch).mean().backward()
        optimizer.step()
        model.latent.count_examples(len(TEXTS))
    spec = {"name": "small", "spec": encoder.spec()}
    config = {"task": "cln", "encoder": spec, "settings": {}, "tokenizer_sha256": None}
    config["tokenizer_sha256"] = vocabulary_hash(task.tokenizer.backend)
    run = Run(folder, config, task, task.tokenizer, model.eval())
    run.save_new()
    run.save_model({})
    return task, model, folder


def test_a_text_is_written_again_from_its_z(trained):
    task, model, _ = trained
    task.config = Settings(**{**vars(task.config), "samples": 5})
    for first, last in (TEXTS[:2], TEXTS[2:]):
        (found,) = predict_examples(task, model, [task.read({"between": [first, last]})])
        assert found.texts[0] == first
        assert found.texts[-1] == last
        assert len(found.texts) == 5


@pytest.mark.parametrize("search", ["sample", "beams"])
def test_drawn_texts_differ_by_z_alone_and_by_line_and_copy(trained, search):
    task, model, folder = trained
    task.config = Settings(**{**vars(task.config), "samples": 6, "search": search})
    examples = [task.numbered(task.read({}), number) for number in range(1, 5)]
    found = predict_examples(task, model, examples)
    assert all(len(prediction.texts) == 6 for prediction in found)
    assert len({tuple(prediction.texts) for prediction in found}) > 1
    assert found == predict_examples(task, model, examples, batch_size=1)
    again = load(folder)
    again.task.config = task.config
    assert found == predict_examples(again.task, again.model, examples)
    assert again.model.latent.seen == model.latent.seen == 800


def test_evaluation_counts_the_divergence_and_another_z_is_worse(trained):
    task, model, _ = trained
    examples = [task.read({"text": text}) for text in TEXTS]
    batch = task.collate(examples)
    decode = partial(task.evaluate, brief=True)
    found = predict_examples(task, model, examples, decode=decode)
    kl_B = model.latent.divergence(*model.posterior(batch.texts)).sum(1).tolist()
    assert all(assessed.nats >= kl - 1e-3 > 0 for assessed, kl in zip(found, kl_B, strict=True))
    assert [a.nats for a in found] == pytest.approx(model(batch).tolist(), rel=1e-3)
    metrics = task.score(zip([e.gold for e in examples], found, strict=True))
    assert metrics["wrong_perplexity"] > 2 * metrics["perplexity"]


def test_with_labels_both_move_the_texts_and_every_weight_learns(tmp_path):
    records = [{"label": "ab"[n % 2], "text": text} for n, text in enumerate(TEXTS)]
    task, model, _ = make(tmp_path, records)
    model.train()(task.collate([task.read(record) for record in records])).sum().backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    with pytest.raises(RecordError, match='field "label"'):
        task.read({"label": "c"})
    task.read({})  # a label is not needed


@pytest.mark.parametrize("between", ["云", ["云"], ["云", ""], ["云", 3], ["云", "山", "月"]])
def test_what_is_not_two_texts(tmp_path, between):
    task, _, _ = make(tmp_path, [{"text": "云"}])
    with pytest.raises(RecordError, match="expected two texts"):
        task.read({"between": between})


def test_without_latent_vectors_there_is_nothing_between(tmp_path):
    config = Task.prepare(Settings(), [("f:1", {"label": "a", "text": "云"})], tmp_path)
    task = Task(config, encoders.load_tokenizer("tiny"), tmp_path)
    with pytest.raises(RecordError, match="no latent vectors") as caught:
        task.read({"label": "a", "between": ["云", "山"]})
    assert "cln.latent" in caught.value.hint


def test_a_setting_makes_it_from_the_command_line(tmp_path):
    data, run = tmp_path / "data.jsonl", tmp_path / "run"
    data.write_bytes(nlpkit("data", "sample", "cln", "--count", 20).stdout)
    flags = [
        "--set=train.precision=fp32",
        "--epochs=1",
        "--encoder=tiny",
        "--set=cln.max_length=12",
    ]
    nlpkit(
        "train", "cln", "--data", data, "--dev", data, "--out", run, "--set=cln.latent=4", *flags
    )
    line = json.dumps({"between": ["下次还来！", "白花了钱。"]}).encode()
    out = json.loads(nlpkit("predict", run, "--set=cln.samples=3", stdin=line).stdout)
    assert len(out["prediction"]["texts"]) == 3
