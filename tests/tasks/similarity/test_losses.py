"""The losses of similarity against plain loops of their equations."""

import math

import pytest
import torch

from nlpkit.tasks.similarity.losses import am_softmax, contrastive, cosent

torch.manual_seed(0)


def unit(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("margin", [0.0, 0.35])
def test_am_softmax_is_its_equation(margin):
    cosine = torch.rand(3, 5, dtype=torch.float64) * 2 - 1
    groups = [4, 0, 4]
    found = am_softmax(cosine, torch.tensor(groups), margin, 30.0)
    for row, right in enumerate(groups):
        values = cosine[row].tolist()
        own = math.exp(30 * (values[right] - margin))
        others = sum(math.exp(30 * v) for j, v in enumerate(values) if j != right)
        assert float(found[row]) == pytest.approx(-math.log(own / (own + others)))


def test_without_a_margin_it_is_the_cross_entropy():
    cosine = torch.rand(4, 6) * 2 - 1
    groups = torch.tensor([0, 5, 2, 2])
    expected = torch.nn.functional.cross_entropy(30 * cosine, groups, reduction="none")
    torch.testing.assert_close(am_softmax(cosine, groups, 0.0, 30.0), expected)


def test_contrastive_leaves_out_what_is_the_same_and_learns_nothing_from_what_is_not_alike():
    a, b = unit(4, 8), unit(4, 8)
    keys = torch.tensor([[1.0, 2.0], [3.0, 1.0], [5.0, 5.0], [6.0, 7.0]], dtype=torch.float64)
    alike = torch.tensor([True, True, True, False])
    found = contrastive(a, b, keys, alike, 0.1)

    def same(i, j):
        return bool(set(keys[i].tolist()) & set(keys[j].tolist()))

    for i in range(4):
        there = back = 0.0
        for j in range(4):
            if i == j or not same(i, j):
                there += math.exp(float(a[i] @ b[j]) / 0.1)
                back += math.exp(float(a[j] @ b[i]) / 0.1)
        own = float(a[i] @ b[i]) / 0.1
        expected = (math.log(there) - own + math.log(back) - own) / 2 if alike[i] else 0.0
        assert float(found[i]) == pytest.approx(expected)
    assert same(0, 1)
    assert not same(1, 2)


def test_cosent_orders_the_cosines_as_the_grades():
    cosine = torch.tensor([0.9, 0.1, 0.5], dtype=torch.float64)
    grades = torch.tensor([1.0, 3.0, 1.0])
    terms = [math.exp((c - 0.1) / 0.05) for c in (0.9, 0.5)]
    expected = math.log(1 + sum(terms))
    assert cosent(cosine, grades, 0.05).tolist() == pytest.approx([expected] * 3)
    assert cosent(cosine, torch.ones(3), 0.05).tolist() == [0.0] * 3
