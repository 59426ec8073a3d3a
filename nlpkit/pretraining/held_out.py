"""How well an encoder tells the tokens of blocks held out from its texts.

N targets, M tokens of a batch, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from nlpkit.encoders.base import encode
from nlpkit.errors import SettingsError
from nlpkit.pretraining.objectives import Kind, PretrainBatch

BLOCKS = 512  # most that an evaluation takes

Batches = Callable[[Kind], Iterable[PretrainBatch]]


def held_out_blocks(tokens: np.ndarray, length: int, most: int = BLOCKS) -> list[np.ndarray]:
    """At most so many blocks of `length` tokens, from all over the tokens. Raises SettingsError
    where there is none."""
    there = len(tokens) // length
    count = min(most, there)
    if not count:
        raise SettingsError(
            f"too little text: {len(tokens)} tokens are held out, a block has {length}"
        )
    chosen = np.linspace(0, there - 1, count).astype(int)
    return [tokens[index * length : (index + 1) * length] for index in chosen]


def kinds_of(encoder: Any) -> tuple[Kind, ...]:
    """What an encoder is evaluated on."""
    if encoder.objective == "masked":
        return ("masked", "prefix") if "prefix" in encoder.attentions else ("masked",)
    return ("next", "previous") if encoder.directions == 2 else ("next",)


def perplexities(model: Any, batches: Batches, autocast: Any) -> dict[str, Any]:
    """Perplexity by tokens and accuracy of a `Pretrainer`, for each of `kinds_of` its encoder."""
    found: dict[str, Any] = {}
    for kind in kinds_of(model.encoder):
        loss, right, targets = 0.0, 0, 0
        for batch in batches(kind):
            with torch.inference_mode(), autocast():
                logits_NV = model.logits(batch).float()
            loss += torch.nn.functional.cross_entropy(
                logits_NV, batch.targets_N, reduction="sum"
            ).item()
            right += int((logits_NV.argmax(-1) == batch.targets_N).sum())
            targets += len(batch.targets_N)
        found[f"{kind}_perplexity"] = round(math.exp(loss / targets), 3)
        found[f"{kind}_accuracy"] = round(right / targets, 4)
    return found


def detection_f1(model: Any, batches: Batches, autocast: Any) -> float:
    """F1 of the replaced tokens that a `Pretrainer` finds: the better its encoder fills in, the
    harder they are."""
    correct, either = 0, 0
    for batch in batches("replaced"):
        with torch.inference_mode(), autocast():
            logits_M, replaced_M = model.detect(batch)
        correct += int((replaced_M & (logits_M > 0)).sum())
        either += int(replaced_M.sum()) + int((logits_M > 0).sum())
    return round(2 * correct / max(1, either), 4)


def pointing_figures(model: Any, batches: Batches, autocast: Any) -> dict[str, Any]:
    """`span_accuracy`: of the [MASK]s of hidden spans the share from which a `Pretrainer` points to
    the right start and the right end, out of all tokens of the row for each; 0 where there is none.
    `span_targets`: how many there are."""
    right, targets = 0, 0
    for batch in batches("spans"):
        pointers = batch.pointers
        assert pointers is not None
        with torch.inference_mode(), autocast():
            hidden_BTH = encode(model.encoder, batch.tokens)
            start_BKT, end_BKT = model.pointing(hidden_BTH, batch.tokens.mask_BT, pointers)
        is_start_BK = start_BKT.argmax(-1) == pointers.first_BK
        is_end_BK = end_BKT.argmax(-1) == pointers.last_BK
        right += int((is_start_BK & is_end_BK).sum())
        targets += int(pointers.are_there().sum())
    return {"span_accuracy": round(right / max(1, targets), 4), "span_targets": targets}
