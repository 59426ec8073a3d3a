"""The linear classifier in closed form against normal densities and least squares."""

import numpy as np
import pytest
import torch

from nlpkit.layers.linear_discriminant import FLOOR, Sums, solve

DRAWN = np.random.default_rng(0)
LABELS = DRAWN.integers(0, 3, 200)
FEATURES = DRAWN.normal(size=(200, 5)) @ DRAWN.normal(size=(5, 5)) + LABELS[:, None] * [
    1,
    0,
    2,
    0,
    5,
]


def sums_of(features, labels, cut):
    sums = Sums.of_none(int(labels.max()) + 1, features.shape[1], torch.device("cpu"))
    for first in range(0, len(labels), cut):
        rows = slice(first, first + cut)
        sums.add(torch.tensor(features[rows]), torch.tensor(labels[rows]))
    return sums


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_probabilities_are_those_of_normal_densities_with_one_covariance(shrinkage):
    weight_LD, bias_L = solve(sums_of(FEATURES, LABELS, 7), shrinkage)
    means = [FEATURES[label == LABELS].mean(0) for label in range(3)]
    centred = FEATURES - np.array(means)[LABELS]
    within = centred.T @ centred / len(LABELS)
    diagonal = np.diag(np.diag(within))
    covariance = (1 - shrinkage) * within + shrinkage * diagonal
    covariance += FLOOR * np.diag(within).mean() * np.eye(5)
    density = []
    for label, mean in enumerate(means):
        offset = FEATURES - mean
        distance = (offset @ np.linalg.inv(covariance) * offset).sum(1)
        density.append(np.log((label == LABELS).mean()) - distance / 2)
    expected = torch.tensor(np.array(density).T).log_softmax(1)
    found = (torch.tensor(FEATURES) @ weight_LD.T + bias_L).log_softmax(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_two_labels_have_the_direction_of_least_squares():
    labels = np.minimum(LABELS, 1)
    weight_LD, _ = solve(sums_of(FEATURES, labels, 50), 0.0)
    direction = (weight_LD[1] - weight_LD[0]).numpy()
    columns = np.column_stack([FEATURES, np.ones(len(labels))])
    least, *_ = np.linalg.lstsq(columns, labels.astype(float), rcond=None)
    cosine = direction @ least[:5] / np.linalg.norm(direction) / np.linalg.norm(least[:5])
    assert cosine == pytest.approx(1, abs=1e-9)


def test_neither_cut_nor_order_counts():
    one = solve(sums_of(FEATURES, LABELS, 200), 0.1)
    other = solve(sums_of(FEATURES[::-1].copy(), LABELS[::-1].copy(), 1), 0.1)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_features_that_never_vary_say_nothing():
    still = np.column_stack([FEATURES, np.full(200, 3.0)])
    weight_LD, bias_L = solve(sums_of(still, LABELS, 200), 0.1)
    plain_LD, plain_L = solve(sums_of(FEATURES, LABELS, 200), 0.1)
    found = torch.tensor(still) @ weight_LD.T + bias_L
    expected = torch.tensor(FEATURES) @ plain_LD.T + plain_L
    torch.testing.assert_close(found.softmax(1), expected.softmax(1), rtol=0, atol=1e-5)
    alike, _ = solve(sums_of(np.ones((4, 2)), np.array([0, 1, 0, 1]), 4), 0.1)
    assert torch.equal(alike, torch.zeros(2, 2, dtype=torch.float64))
