"""Batches made one step ahead: the same training, the next batch while a step is taken, an error where
it belongs, and no thread left behind."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import write_lines
from small_fits import assert_same, fit_of, steps_of

from nlpkit import samples
from nlpkit.training import ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    records = list(samples.records("ner", 40, seed=2))
    return write_lines(tmp_path_factory.mktemp("lines") / "data.jsonl", records)


@pytest.fixture
def everywhere(monkeypatch):
    monkeypatch.setattr(ahead, "pays", lambda device: True)


def test_a_training_is_bit_for_bit_that_without(lines, tmp_path, monkeypatch):
    settings = {"accumulate": 2}
    calls = ["vat(weight=0.1)", "pgd"]  # which ask for the batch several times
    plain = steps_of(fit_of(lines, tmp_path / "plain", *calls, **settings), 6)
    monkeypatch.setattr(ahead, "pays", lambda device: True)
    made = steps_of(fit_of(lines, tmp_path / "ahead", *calls, **settings), 6)
    assert_same(plain, made)


def test_it_goes_on_bit_for_bit_and_ends_its_thread(lines, tmp_path, everywhere):
    whole = steps_of(fit_of(lines, tmp_path / "whole"), 4)
    cut = fit_of(lines, tmp_path / "cut")
    for event in cut.events():
        if event.step == 2:
            assert threads()
            cut.state.interrupted = True
    assert not threads()
    losses, weights = steps_of(fit_of(lines, tmp_path / "cut"), 4)
    assert losses == whole[0][3:]
    for name, tensor in whole[1].items():
        assert torch.equal(weights[name], tensor), name


def test_the_next_batch_is_made_while_a_step_is_taken():
    made = {number: threading.Event() for number in range(3)}

    def micro_batches(step):
        yield step
        made[step].set()

    with ThreadPoolExecutor(1) as pool:
        batches = ahead.Ahead(micro_batches, 3, pool)
        for step in range(3):
            assert batches(step) == [step]
            if step < 2:
                assert made[step + 1].wait(60)  # nothing has asked for it yet
        assert batches(2) == [2]


def test_a_batch_is_made_once_however_often_a_step_asks_and_errors_come_with_their_step():
    counts = []

    def micro_batches(step):
        counts.append(step)
        if step == 2:
            raise ValueError("line 7")
        yield step

    with ThreadPoolExecutor(1) as pool:
        batches = ahead.Ahead(micro_batches, 9, pool)
        for step in (0, 0, 1, 1):
            assert batches(step) == [step]
        with pytest.raises(ValueError, match="line 7"):
            batches(2)
    assert counts[:3] == [0, 1, 2]
    assert max(counts) == 3


def test_a_processor_makes_them_when_they_are_asked_for():
    with ahead.made_ahead(iter, 3, torch.device("cpu")) as made:
        assert made is iter
    assert not ahead.pays(torch.device("cpu"))
    assert ahead.pays(torch.device("cuda"))
