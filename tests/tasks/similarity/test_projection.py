"""The projection of an index's vectors: the bound, what is to be expected, and the same everywhere."""

import math

import numpy as np
import pytest
import torch
from conftest import write_lines
from test_similarity import GROUPS, made

from nlpkit.errors import SettingsError
from nlpkit.inference.predictor import predict_examples
from nlpkit.tasks.similarity.projection import matrix, project


def unit(rows, size):
    drawn = torch.from_numpy(np.random.default_rng(3).normal(size=(rows, size)))
    return torch.nn.functional.normalize(drawn, dim=1)


def test_products_are_kept_within_the_bound():
    vectors_RH = unit(100, 700)
    near = torch.nn.functional.normalize(vectors_RH[:50] + vectors_RH[50:] / 2, dim=1)
    vectors_RH[50:] = near
    for error in (0.5, 0.75):
        numbers = math.floor(24 * math.log(100) / error**2) + 1
        projected_RN = vectors_RH @ matrix(700, numbers).double()
        off_RR = projected_RN @ projected_RN.T - vectors_RH @ vectors_RH.T
        assert off_RR.abs().max() < error
        # a pair fails with 4 exp(-n e^2 / 8), all 4950 of them with less than 2 / 100
        assert 4950 * 4 * math.exp(-numbers * error**2 / 8) < 2 / 100


@pytest.mark.parametrize("cosine", [0.0, 0.5, 0.9])
def test_cosines_err_as_much_as_is_said(cosine):
    one_RH = unit(2000, 256)
    other_RH = unit(2001, 256)[1:]
    other_RH -= (other_RH * one_RH).sum(1, keepdim=True) * one_RH
    other_RH = torch.nn.functional.normalize(other_RH, dim=1)
    other_RH = cosine * one_RH + math.sqrt(1 - cosine**2) * other_RH
    error_R = (project(one_RH, 64) * project(other_RH, 64)).sum(1) - cosine
    assert float(error_R.std()) == pytest.approx((1 - cosine**2) / 8, rel=0.15)
    assert abs(float(error_R.mean())) < 0.02


def test_the_matrix_is_the_same_everywhere_and_half_of_it_is_negative():
    signs_HN = matrix(8, 8) * math.sqrt(8)
    rows = ["".join("+" if sign > 0 else "-" for sign in row) for row in signs_HN.tolist()]
    assert rows[:2] == ["++-+-+--", "-+-++-++"]
    large_HN = matrix(256, 128)
    assert abs(float(large_HN.sign().mean())) < 0.02
    assert torch.equal(large_HN.abs(), torch.full_like(large_HN, 128**-0.5))
    vectors_RH = unit(9, 256)
    assert torch.equal(project(vectors_RH, 16)[4:5], project(vectors_RH[4:5], 16))
    assert torch.equal(project(vectors_RH, 0), vectors_RH.float())


def test_an_index_shrinks_and_a_sentence_still_finds_itself(tmp_path):
    kb = write_lines(tmp_path / "given.jsonl", GROUPS)
    folder = tmp_path / "run"
    folder.mkdir()
    task, model = made(GROUPS, folder, kb=str(kb), project=12)
    predictions = predict_examples(task, model.eval(), [task.read(GROUPS[0])])
    (file,) = folder.glob(".vectors-*")
    assert file.stat().st_size == 2 * len(GROUPS) * 12 + 32
    assert predictions[0].nearest[0].text == GROUPS[0]["text"]
    assert predictions[0].nearest[0].score == pytest.approx(1, abs=1e-3)
    with pytest.raises(SettingsError, match="similarity.project: expected fewer than the"):
        made(GROUPS, folder, project=model.encoder.hidden_size)
