"""What a training takes at most, found by trying: real steps on its largest batches, then an
evaluation of its longest lines.

A step is taken as the training takes it, with its techniques, wrappers, average and lines without
gold, since each of them holds memory of its own. A second step is needed: what the optimizer
remembers exists after the first one only, and then lies beside the activations. What a training
takes beyond it are the predictions of all lines of dev, which an evaluation keeps until it has
scored them, and gaps in the heap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from nlpkit.inference.predictor import Predictor
from nlpkit.training.batching import Batches
from nlpkit.training.closed_form import ClosedFormModel, step_of
from nlpkit.training.state import TrainState
from nlpkit.training.unlabelled import Unlabelled

EVALUATED = 64
"""Lines of dev that are tried: as many as a batch of the evaluation has."""


def largest(per_epoch: int, *batches: Batches) -> list[int]:
    """The steps of the first epoch to try: that with the most tokens, and that with the longest
    example. A step has a batch of each of the `batches`."""

    def lengths_of(step: int) -> np.ndarray:
        return np.concatenate([one.lengths[one[step]] for one in batches])

    steps = range(per_epoch)
    most = max(steps, key=lambda step: lengths_of(step).sum())
    longest = max(steps, key=lambda step: lengths_of(step).max())
    return [most, longest]


def take_steps(
    state: TrainState, micro_batches: Callable[[int], Iterable[Any]], steps: Sequence[int]
) -> None:
    """Trains on the batches of some steps, and once more on that of the first of them, each beside
    one of the largest batches of lines without gold. The state is of no use afterwards."""
    bare = state.unlabelled
    if isinstance(bare, Unlabelled):
        bare_steps = largest(bare.batches.per_epoch, bare.batches)
        state.unlabelled = lambda step: bare(bare_steps[step % 2])
    take_step = step_of(state)
    state.model.train()
    is_computed = isinstance(state.model, ClosedFormModel)
    tried = steps[:1] if is_computed else [*steps, steps[0]]
    for step in tried:
        take_step(partial(micro_batches, step))


def evaluate_longest(fit: Any) -> None:
    """Predicts the longest lines of dev as an evaluation of this `Fit` does; nothing is scored."""
    longest = sorted(fit.dev, key=len)[-EVALUATED:]
    predictor: Predictor = fit.predictor()
    predictor.of_examples(longest)
