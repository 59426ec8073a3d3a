"""Lines without gold that train beside others: what they add to a step, however it is cut, what they
leave alone, and what is refused."""

import shutil
import threading

import pytest
import torch
from conftest import DRY, SMALL, nlpkit, write_lines
from small_fits import assert_same, fit_of, steps_of
from test_technique_equations import (
    TABLE,
    Accelerator,
    Batch,
    Network,
    autograd_of,
    gradient_of,
    moved,
    pieces,
    step_of,
    whole_batch,
)
from torch.func import functional_call

from nlpkit import samples
from nlpkit.config import build
from nlpkit.errors import DataError, SettingsError
from nlpkit.inference.devices import accelerator_for
from nlpkit.training.distributions import kl_divergence
from nlpkit.training.perturbation import random_like, unit
from nlpkit.training.plan import Plan
from nlpkit.training.resume import open_fit
from nlpkit.training.settings import TrainConfig

VAT = "vat(epsilon=1.5, xi=0.01, weight=0.6)"


def bare(cuts):
    """Seven examples without labels, in pieces."""
    generator = torch.Generator().manual_seed(5)
    token_ids_BT = torch.randint(9, (7, 6), generator=generator)
    return [Batch(part, None) for part in token_ids_BT.tensor_split(cuts)]


def expected():
    """(loss, gradient): the divergence is the mean over all eighteen examples."""
    model = Network()
    every = Batch(torch.cat([whole_batch().token_ids_BT, bare(1)[0].token_ids_BT]), None)
    p = model.log_probs(model.outputs(every)).detach()

    def divergence(change):
        weights = moved(model, **{TABLE: model.encoder.table.weight + change})
        logits = functional_call(model, weights, (every,))
        return kl_divergence(p, logits.log_softmax(1)[:, None]).mean()

    loss_of = model.forward
    model.forward = model.outputs  # for functional_call
    change = (0.01 * unit(random_like(model.encoder.table.weight, 4, 0))).requires_grad_()
    direction = unit(torch.autograd.grad(divergence(change), change)[0])
    loss = loss_of(whole_batch()).mean() + 0.6 * divergence(1.5 * direction)
    return float(loss.detach()), autograd_of(loss, model)


def assert_gradient(found, wanted):
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("cuts", [1, 2, 5])
def test_they_count_for_vat_as_the_others_do_and_for_nothing_else(cuts):
    step = step_of(VAT)
    step.state.unlabelled = lambda number: bare(cuts)
    loss, gradient = gradient_of(step, cuts)
    wanted_loss, wanted = expected()
    assert loss == pytest.approx(wanted_loss, rel=1e-6)
    assert_gradient(gradient, wanted)
    plain_loss, plain = gradient_of(step_of(), cuts)
    alone = step_of("vat(weight=0)")
    alone.state.unlabelled = lambda number: bare(cuts)
    same_loss, same = gradient_of(alone, cuts)
    assert same_loss == plain_loss
    assert all(torch.equal(same[name], plain[name]) for name in plain)


def test_two_processes_equal_one():
    others = [None, None]
    barrier = threading.Barrier(2, timeout=60)
    found = [None, None]

    def process(index):
        step = step_of(VAT, model=models[index], accelerator=Accelerator(index, others, barrier))
        step.state.unlabelled = lambda number: [bare(3)[:1], bare(3)[1:]][index]
        share = [pieces(3)[:2], pieces(3)[2:]][index]
        total = step.combine(step.backward(lambda: share))
        found[index] = total.loss, {n: p.grad for n, p in step.state.model.named_parameters()}

    models = [Network(), Network()]
    threads = [threading.Thread(target=process, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted_loss, wanted = expected()
    for loss, gradient in found:
        assert loss == pytest.approx(wanted_loss, rel=1e-6)
        assert_gradient(gradient, wanted)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    records = list(samples.records("ner", 60, seed=2))
    return write_lines(tmp_path_factory.mktemp("lines") / "data.jsonl", records)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Lines of which some have gold; it is not looked at."""
    records = list(samples.records("ner", 40, seed=3))
    some = [{"text": record["text"]} for record in records[:20]] + records[20:]
    return write_lines(tmp_path_factory.mktemp("texts") / "texts.jsonl", some)


def test_a_training_with_them_is_exact_for_any_cut_and_goes_on_bit_for_bit(lines, texts, tmp_path):
    texts = shutil.copy(texts, tmp_path / "texts.jsonl")
    more = {"unlabelled": [str(texts)]}
    torch.set_default_dtype(torch.float64)
    try:
        whole = steps_of(fit_of(lines, tmp_path / "whole", "vat", encoder=DRY, **more), 1)
        cut = fit_of(lines, tmp_path / "pieces", "vat", encoder=DRY, accumulate=4, **more)
        assert_same(whole, steps_of(cut, 1), atol=1e-6)
    finally:
        torch.set_default_dtype(torch.float32)
    whole = steps_of(fit_of(lines, tmp_path / "run", "vat", **more), 3)
    without = steps_of(fit_of(lines, tmp_path / "without", "vat"), 1)
    assert without[0][0] != whole[0][0]
    cut = fit_of(lines, tmp_path / "cut", "vat", **more)
    for event in cut.events():
        if event.step == 1:
            cut.state.interrupted = True
    resumed = fit_of(lines, tmp_path / "cut", "vat", **more)
    losses, weights = steps_of(resumed, 3)
    assert losses == whole[0][2:]
    assert all(torch.equal(weights[name], tensor) for name, tensor in whole[1].items())
    about = resumed.run.config["data"]
    assert about["unlabelled_lines"] == 40
    texts.write_bytes(texts.read_bytes() + b'{"text": "\xe4\xba\x91"}\n')
    with pytest.raises(SettingsError, match="cannot resume: data.unlabelled_lines"):
        fit_of(lines, tmp_path / "cut", "vat", **more)


def test_each_step_has_as_many_of_them_and_the_others_stay_as_they_are(lines, texts, tmp_path):
    fit = fit_of(lines, tmp_path / "run", "vat", unlabelled=[str(texts)])
    plain = fit_of(lines, tmp_path / "plain")
    assert fit.batches.per_epoch == plain.batches.per_epoch
    for number in range(6):
        bare_ones = list(fit.state.unlabelled(number))
        assert sum(len(batch.encodings) for batch in bare_ones) in (12, 40 % 12)
        assert all(batch.gold_N4 is None for batch in bare_ones)
        pair = zip(fit.micro_batches(number), plain.micro_batches(number), strict=True)
        assert all(torch.equal(one.gold_N4, other.gold_N4) for one, other in pair)


@pytest.mark.parametrize("task", ["classification", "gplinker"])
def test_other_tasks_whose_models_predict_distributions_take_them_too(task, tmp_path):
    data = write_lines(tmp_path / "data.jsonl", samples.records(task, 40, seed=2))
    texts = [{"text": record["text"]} for record in samples.records(task, 20, seed=4)]
    bare_path = write_lines(tmp_path / "bare.jsonl", texts)
    train = {"precision": "fp32", "techniques": ["vat(weight=0.1)"], "batch_size": 8}
    train["unlabelled"] = [str(bare_path)]
    sections = ({"train": train, "encoder": SMALL},)
    plan = Plan(task, (str(data),), tmp_path / "run", encoder="dgcnn", values=sections)
    (loss, *_), _ = steps_of(open_fit(plan, accelerator_for("cpu", "fp32")), 1)
    assert loss > 0


def test_what_does_not_go_together_is_refused(lines, texts, tmp_path):
    with pytest.raises(SettingsError, match=r"train.unlabelled: no technique .*\"vat\""):
        build(TrainConfig, {"unlabelled": ["a.jsonl"], "techniques": ["rdrop"]}, "train")
    wrong = write_lines(tmp_path / "wrong.jsonl", [{"text": "云"}, {"text": 3}])
    with pytest.raises(DataError, match="wrong.jsonl:2: "):
        fit_of(lines, tmp_path / "run", "vat", unlabelled=[str(wrong)])
    mixed = write_lines(
        tmp_path / "mixed.jsonl", [*samples.records("ner", 20, seed=2), {"text": "云"}]
    )
    with pytest.raises(DataError, match="mixed.jsonl:21: no gold") as caught:
        fit_of(mixed, tmp_path / "run", "vat")
    assert "unlabelled" in caught.value.hint
    data = write_lines(tmp_path / "data.jsonl", samples.records("casrel", 40, seed=2))
    flags = ["--encoder=dgcnn", "--set=train.precision=fp32", '--set=train.techniques=["vat"]']
    flags += [f'--set=train.unlabelled=["{data}"]', "--out", tmp_path / "casrel"]
    done = nlpkit("train", "casrel", "--data", data, *flags, check=False)
    assert done.returncode == 2
    assert b"vat: it compares distributions" in done.stderr


def test_a_dry_run_has_the_largest_batches_of_them_too(lines, texts, tmp_path):
    long = "云" * 100
    texts.write_bytes(texts.read_bytes() + ('{"text": "' + long + '"}\n').encode())
    fit = fit_of(lines, tmp_path / "run", "vat", unlabelled=[str(texts)])
    widths = []
    collate = fit.run.task.collate

    def noting(examples, **settings):
        if settings.get("targets") is False:
            widths.append(max(map(len, examples)))
        return collate(examples, **settings)

    fit.run.task.collate = noting
    fit.dev = fit.dev[:0]  # else its evaluation would collate without targets too
    fit.rehearse()
    assert max(widths) >= len(long)
