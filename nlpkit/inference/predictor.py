"""Predictions for many examples; `eval` and the filter of `predict` share it, so that its score is
the filter's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch

from nlpkit.inference.batching import split

MAX_TOKENS = 8192  # of a batch, padding included


def predict_examples(
    task: Any,
    model: torch.nn.Module,
    examples: Sequence[Any],
    *,
    windows: list[list[Any]] | None = None,
    batch_size: int = 64,
    precision: str = "fp32",
    loose: bool = False,
    assess: Literal["brief", "whole"] | None = None,
) -> list[Any]:
    """One prediction for each example, in order.

    Args:
        windows: of each example; None for all that the task cuts it to.
        batch_size: most windows decoded together; fewer where they are long (MAX_TOKENS).
        precision: of the matrix products, "fp32" or "bf16".
        loose: keep what lies below the task's threshold, for `task.tune`.
        assess: for evaluation, of a task that tells more there than it predicts: all of it, or the
            brief.
    """
    assess = assess if task.assesses else None
    decode = (
        partial(task.assess, brief=assess == "brief")
        if assess
        else partial(task.decode, loose=loose)
    )
    windows = [task.windows(example) for example in examples] if windows is None else windows
    device = next(model.parameters()).device
    pieces = [piece for some in windows for piece in some]
    lengths = [len(piece) for piece in pieces]
    decoded: list[Any] = [None] * len(pieces)
    parts = -(-len(pieces) // batch_size)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        for indices in split(range(len(pieces)), lengths, MAX_TOKENS, parts) if pieces else ():
            batch = task.collate(
                [pieces[index] for index in indices], targets=assess is not None
            ).to(device)
            for index, prediction in zip(indices, decode(model, batch), strict=True):
                decoded[index] = prediction
    found = iter(decoded)
    return [
        task.merge(example, [next(found) for _ in some])
        for example, some in zip(examples, windows, strict=True)
    ]
