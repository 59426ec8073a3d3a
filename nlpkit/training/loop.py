"""The trainer: a generator of events that knows no task.

    for event in train(state, micro_batches, evaluate, ...):
        ...  # the caller saves, draws, logs, or breaks

What a step does is in `nlpkit.training.step`, what it changes in `nlpkit.training.state`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from nlpkit.training.ahead import MicroBatchesOf, made_ahead
from nlpkit.training.closed_form import step_of
from nlpkit.training.state import TrainState


@dataclass(frozen=True)
class Step:
    """An optimiser step is done. `loss` is the mean over the examples of the step, nan where the
    model was computed."""

    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    examples: int
    interrupted: bool


@dataclass(frozen=True)
class Evaluation:
    """The model was evaluated after `step`."""

    step: int
    epoch: float
    metrics: dict[str, Any]
    value: float
    is_best: bool


def train(
    state: TrainState,
    micro_batches: MicroBatchesOf,
    evaluate: Callable[[], dict[str, Any]],
    monitor: str,
    steps_per_epoch: int,
) -> Iterator[Step | Evaluation]:
    """Trains from `state.step` to `state.steps`, yielding after every step and every evaluation.

    All processes must iterate alike.

    Args:
        state: where the training is.
        micro_batches: (step, counted from 0) -> this process's micro-batches of the step's batch;
            the same ones whenever it is called, by any thread.
        evaluate: () -> metrics; called under `state.evaluated_weights()`.
        monitor: the metric that picks the best; higher is better.
        steps_per_epoch: for the epochs of the events, and for `train.evaluate_every`.
    """
    every = max(1, round(state.config.evaluate_every * steps_per_epoch))
    patience = state.config.patience or float("inf")
    take_step = step_of(state)
    state.model.train()
    with made_ahead(micro_batches, state.steps, state.accelerator.device) as made:
        while state.bad_evaluations < patience:
            if state.evaluation_is_due(every):
                yield _evaluate(state, evaluate, monitor, steps_per_epoch)
            elif state.step < state.steps:
                total = take_step(partial(made, state.step))
                yield Step(
                    step=state.step,
                    steps=state.steps,
                    epoch=state.step / steps_per_epoch,
                    loss=total.loss,
                    learning_rate=max(group["lr"] for group in state.optimizer.param_groups),
                    examples=total.examples,
                    interrupted=total.interrupted,
                )
            else:
                return


def _evaluate(
    state: TrainState, evaluate: Callable[[], dict[str, Any]], monitor: str, steps_per_epoch: int
) -> Evaluation:
    """Evaluates and notes the result in the state."""
    with state.evaluated_weights():
        metrics = evaluate()
    value = float(metrics[monitor])
    epoch = state.step / steps_per_epoch
    is_best = value > state.best
    state.best = max(value, state.best)
    state.bad_evaluations = 0 if is_best else state.bad_evaluations + 1
    state.history.append({"step": state.step, "epoch": round(epoch, 3), **metrics})
    return Evaluation(state.step, epoch, metrics, value, is_best)
