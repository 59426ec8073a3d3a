"""One prediction for long texts from those of their windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nlpkit.tasks.similarity.examples import Found, Neighbour, Pair, Prediction, Vector, VectorPair


def merged(
    predictions: Sequence[Prediction], tokens: Sequence[int], most: int, digits: int
) -> Prediction:
    """The mean of cosines and vectors, weighted by the windows' tokens; of the neighbours of all
    windows the `most` nearest, each once."""
    weights_W = np.array(tokens, float) / sum(tokens)
    if isinstance(predictions[0], Found):
        best: dict[int, Neighbour] = {}
        for prediction in predictions:
            for neighbour in prediction.nearest if isinstance(prediction, Found) else ():
                known = best.get(neighbour.line, neighbour)
                best[neighbour.line] = max(known, neighbour, key=lambda one: one.score)
        nearest = sorted(best.values(), key=lambda one: (-one.score, one.line))[:most]
        return Found(nearest[0].group, nearest)
    if isinstance(predictions[0], Vector):
        vectors = [one.vector for one in predictions if isinstance(one, Vector)]
        return Vector(_mean(vectors, weights_W, digits))
    if isinstance(predictions[0], VectorPair):
        pairs = [one for one in predictions if isinstance(one, VectorPair)]
        first = _mean([one.vector_a for one in pairs], weights_W, digits)
        return VectorPair(first, _mean([one.vector_b for one in pairs], weights_W, digits))
    cosines_W = [one.score for one in predictions if isinstance(one, Pair)]
    return Pair(round(float(np.dot(np.array(cosines_W, float), weights_W)), digits))


def _mean(vectors: Sequence[Sequence[float]], weights_W: np.ndarray, digits: int) -> list[float]:
    mean_H = weights_W @ np.array(vectors, float)
    return (mean_H / max(float(np.linalg.norm(mean_H)), 1e-12)).round(digits).tolist()
