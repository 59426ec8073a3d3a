"""Metrics of similarity: correlation with grades, accuracy of labels, and places in a ranking.

    grades   spearman, pearson of the cosines with the grades
    labels   accuracy, and F1 of the label 1; spearman, pearson too
    groups   recall_K: a text of the right group is among the first K; mrr: mean of 1 / its place, 0
             where it is not listed

Of groups: each text is looked up in the knowledge base, or where there is none among the other
texts of the file; one that is the only one of its group there is not counted.

Legend: N lines, H size of a vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nlpkit.errors import DataError
from nlpkit.tasks.similarity.examples import Found, Pair, Prediction, Vector, VectorPair
from nlpkit.tasks.similarity.settings import Kind

PLACES = (1, 5, 10)
DEFAULT_THRESHOLD = 0.5
"""Of a cosine, where none was tuned or given."""
BLOCK = 512
"""Texts that are compared with all others at a time."""

Scored = tuple[Prediction, Prediction]  # gold, prediction


def score(pairs: Iterable[Scored], kind: Kind | None, threshold: float | None) -> dict[str, Any]:
    """Metrics of (gold, prediction) pairs of one kind. Raises DataError where they are mixed, or
    where predictions cannot be compared with their gold."""
    known = list(pairs)
    texts = sum(isinstance(gold, Found) for gold, _ in known)
    if texts not in (0, len(known)):
        raise DataError("similarity: expected lines of one kind, got pairs and texts with groups")
    if texts:
        return _of_ranking(known)
    grades_N = np.array([gold.label for gold, _ in known if isinstance(gold, Pair)], float)
    cosines_N = np.array([cosine_of(prediction) for _, prediction in known], float)
    metrics = {
        "spearman": round(pearson(ranks(cosines_N), ranks(grades_N)), 6),
        "pearson": round(pearson(cosines_N, grades_N), 6),
        "pairs": len(known),
    }
    is_labels = set(grades_N.tolist()) <= {0.0, 1.0} and kind != "grades"
    return {**_of_labels(known, threshold), **metrics} if is_labels else metrics


def cosine_of(prediction: Prediction) -> float:
    """The cosine of a predicted pair. Raises DataError for another prediction."""
    if isinstance(prediction, VectorPair):
        return float(np.dot(prediction.vector_a, prediction.vector_b))
    if not isinstance(prediction, Pair) or prediction.score is None:
        raise DataError('similarity: expected a prediction with "score", for a pair')
    return prediction.score


def label_of(cosine: float, threshold: float | None) -> int:
    """1 for a cosine above the threshold, else 0."""
    return int(cosine > (DEFAULT_THRESHOLD if threshold is None else threshold))


def _of_labels(known: Sequence[Scored], threshold: float | None) -> dict[str, Any]:
    right = 0
    both = 0
    ones = 0
    for gold, prediction in known:
        assert isinstance(gold, Pair)
        label = prediction.label if isinstance(prediction, Pair) else None
        if label is None:
            label = label_of(cosine_of(prediction), threshold)
        right += label == gold.label
        both += label == gold.label == 1
        ones += int(label == 1) + int(gold.label == 1)
    accuracy = right / max(1, len(known))
    return {"accuracy": round(accuracy, 6), "f1": round(2 * both / max(1, ones), 6)}


def best_threshold(known: Iterable[Scored]) -> float:
    """The threshold with the best accuracy, in the middle between two cosines; of equally good ones
    the lowest."""
    scored = []
    for gold, prediction in known:
        if isinstance(gold, Pair):
            scored.append((cosine_of(prediction), int(gold.label == 1)))
    if not scored:
        return DEFAULT_THRESHOLD
    scored.sort()
    cosines_N, labels_N = map(np.array, zip(*scored, strict=True))
    ones_below = np.concatenate([[0], labels_N.cumsum()])
    zeros_below = np.arange(len(scored) + 1) - ones_below
    right = zeros_below + labels_N.sum() - ones_below
    is_between = np.concatenate([[True], cosines_N[1:] > cosines_N[:-1], [True]])
    place = int(np.where(is_between, right, -1).argmax())
    below = cosines_N[place - 1] if place else -1.0
    above = cosines_N[place] if place < len(scored) else 1.0
    return float((below + above) / 2)


def pearson(one_N: np.ndarray, other_N: np.ndarray) -> float:
    """The correlation of two rows of numbers; 0 where one of them is constant."""
    one_N = one_N - one_N.mean()
    other_N = other_N - other_N.mean()
    norm = float(np.sqrt((one_N**2).sum() * (other_N**2).sum()))
    return float((one_N * other_N).sum()) / norm if norm > 1e-12 else 0.0


def ranks(values_N: np.ndarray) -> np.ndarray:
    """The places of numbers in their order, from 1; equal ones have the mean of theirs."""
    _, which_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[which_N]


def _of_ranking(known: Sequence[Scored]) -> dict[str, Any]:
    if all(isinstance(prediction, Vector) for _, prediction in known):
        places = _places_among_each_other(known)
    else:
        places = [_place_in_list(gold, prediction) for gold, prediction in known]
    counted = max(1, len(places))
    found = [place for place in places if place is not None]
    metrics: dict[str, Any] = {"mrr": round(sum(1 / place for place in found) / counted, 6)}
    for most in PLACES:
        among = sum(place <= most for place in found)
        metrics[f"recall_{most}"] = round(among / counted, 6)
    return {**metrics, "texts": len(places)}


def _place_in_list(gold: Prediction, prediction: Prediction) -> int | None:
    """The place, from 1, of the first neighbour of the right group."""
    if not isinstance(prediction, Found):
        raise DataError('similarity: expected predictions with "nearest" alone, or vectors alone')
    assert isinstance(gold, Found)
    for place, neighbour in enumerate(prediction.nearest, 1):
        if neighbour.group is not None and neighbour.group == gold.group:
            return place
    return None


def _places_among_each_other(known: Sequence[Scored]) -> list[int | None]:
    """For each text that has another of its group: the place, from 1, of the nearest of these among
    all other texts. One as near as a text of another group stands behind it."""
    rows = [prediction.vector for _, prediction in known if isinstance(prediction, Vector)]
    if len({len(row) for row in rows}) > 1:
        raise DataError("similarity: expected vectors of one size")
    vectors_NH = np.array(rows, np.float32)
    names = [gold.group for gold, _ in known if isinstance(gold, Found)]
    _, group_N = np.unique(np.array(names, object).astype(str), return_inverse=True)
    places: list[int | None] = []
    for first in range(0, len(rows), BLOCK):
        cosines_BN = vectors_NH[first : first + BLOCK] @ vectors_NH.T
        for row, cosines_N in enumerate(cosines_BN, first):
            is_own_N = group_N == group_N[row]
            is_other_N = ~is_own_N
            is_own_N[row] = False
            if is_own_N.any():
                nearest = cosines_N[is_own_N].max()
                places.append(1 + int((cosines_N[is_other_N] >= nearest).sum()))
    return places
