"""Metrics of similarity: by hand, and where they are undefined."""

import math
import random

import numpy as np
import pytest

from nlpkit.errors import DataError
from nlpkit.tasks.similarity.examples import Found, Neighbour, Pair, Vector, VectorPair
from nlpkit.tasks.similarity.metrics import best_threshold, pearson, ranks, score


def pairs(golds, cosines):
    return [(Pair(label=g), Pair(c)) for g, c in zip(golds, cosines, strict=True)]


def test_equal_values_share_their_mean_place():
    assert ranks(np.array([3.0, 1.0, 3.0, 7.0])).tolist() == [2.5, 1.0, 2.5, 4.0]


def test_the_correlation_of_grades():
    golds, cosines = [0, 1.5, 5, 4], [0.1, 0.5, 0.6, 0.9]
    found = score(pairs(golds, cosines), None, None)
    # one swap of neighbours among four: 1 - 6 * 2 / (4 * 15)
    assert found["spearman"] == pytest.approx(0.8)
    assert found["pearson"] == pytest.approx(np.corrcoef(golds, cosines)[0, 1], abs=1e-6)
    assert found["pairs"] == 4
    assert "accuracy" not in found
    assert score(pairs([2, 2], [0.1, 0.3]), None, None)["spearman"] == 0
    assert "accuracy" not in score(pairs([0, 1], [0.1, 0.3]), "grades", None)
    assert math.isclose(pearson(np.array([1.0, 2.0]), np.array([2.0, 4.0])), 1)


def test_labels_are_told_by_the_threshold():
    known = pairs([1, 0, 1, 0], [0.9, 0.7, 0.6, 0.1])
    found = score(known, "labels", 0.65)
    assert (found["accuracy"], found["f1"]) == (0.5, 0.5)
    labelled = [(gold, Pair(p.score, 1)) for gold, p in known]
    assert score(labelled, "labels", 0.65)["accuracy"] == 0.5
    assert score(labelled, "labels", 0.65)["f1"] == pytest.approx(2 * 2 / (4 + 2), abs=1e-6)
    vectors = [(Pair(label=1), VectorPair([1.0, 0.0], [0.8, 0.6]))]
    assert score(vectors, "labels", 0.7)["accuracy"] == 1


def test_the_best_threshold_is_the_best_of_all():
    draw = random.Random(1)
    for _ in range(50):
        count = draw.randint(1, 8)
        known = pairs(
            [draw.randint(0, 1) for _ in range(count)],
            [draw.choice([-0.5, 0.1, 0.3, 0.8]) for _ in range(count)],
        )

        def accuracy(threshold, known=known):
            return score(known, "labels", threshold)["accuracy"]

        found = accuracy(best_threshold(known))
        assert found == max(map(accuracy, [-1, -0.2, 0.2, 0.5, 0.9]))


def test_places_in_a_list():
    def listed(*groups):
        return Found(groups[0], [Neighbour("t", 0.5, 1, group) for group in groups])

    known = [
        (Found("a"), listed("a", "b")),
        (Found("a"), listed("b", None, "a")),
        (Found("z"), listed("b", "a")),
    ]
    found = score(known, "groups", None)
    assert found["mrr"] == pytest.approx((1 + 1 / 3) / 3, abs=1e-6)
    assert [found[f"recall_{k}"] for k in (1, 5, 10)] == pytest.approx(
        [1 / 3, 2 / 3, 2 / 3], abs=1e-6
    )


def test_places_among_each_other_leave_out_the_text_itself_and_lonely_ones():
    angle = [0.0, 0.1, 0.25, 0.3, 2.0]
    names = ["a", "b", "a", "b", "c"]
    known = [
        (Found(n), Vector([math.cos(x), math.sin(x)])) for n, x in zip(names, angle, strict=True)
    ]
    found = score(known, "groups", None)
    # of the first: 0.1 is nearer than 0.25; of the second: 0, 0.25, then 0.3; and so on
    assert found["texts"] == 4
    assert found["mrr"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 3 + 1 / 2) / 4, abs=1e-6)
    same = [(Found("a"), Vector([1.0, 0.0])), (Found("a"), Vector([1.0, 0.0]))]
    assert score(same, "groups", None)["mrr"] == 1
    tied = [*same, (Found("b"), Vector([1.0, 0.0]))]
    assert score(tied, "groups", None)["mrr"] == 0.5


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(DataError, match="expected lines of one kind"):
        score([(Found("a"), Vector([1.0])), (Pair(label=1), Pair(0.5))], None, None)
    with pytest.raises(DataError, match='expected a prediction with "score"'):
        score([(Pair(label=1), Found("a"))], None, None)
    with pytest.raises(DataError, match='"nearest" alone, or vectors alone'):
        score([(Found("a"), Vector([1.0])), (Found("a"), Pair(0.5))], None, None)
    with pytest.raises(DataError, match="vectors of one size"):
        score([(Found("a"), Vector([1.0])), (Found("a"), Vector([1.0, 0.0]))], None, None)
