"""What a batch of a task that writes keeps in memory, so that neither a large encoder nor many beams
eat all of it.

A row of S tokens that is written to by K beams in n steps keeps a key and a value of every token in
every layer, of dropped beams too (`nlpkit.encoders.cache`), and has logits for every beam:

    bytes = 2 * (2 * 4 * layers * hidden * (S + n * K))  +  2 * (4 * K * vocabulary)

Both count twice: room for keys doubles when it is used up, and a step makes another tensor of the
size of the logits. What the encoder needs to read the sources is bounded by `MAX_TOKENS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from nlpkit.task import Writes

DECODING_BYTES = 2**31
"""What a batch may keep so on a processor, 2 GiB; one row is decoded whatever it takes. It is about
six times what 64 problems of 100 tokens take on an encoder of 4 layers of 256."""
SHARE_OF_GPU = 0.5
"""Of the memory that is free on a GPU, what torch holds without a use counted."""


def rows_in_memory(task: Any, model: Any, windows: Sequence[Any]) -> Callable[[int], int] | None:
    """How many windows of a width (in tokens, padded) may be decoded together; None for any number,
    where the task does not write."""
    if not isinstance(task, Writes) or not windows:
        return None
    written = [task.beams_and_steps(window) for window in windows]
    beams = max(beams for beams, _ in written)
    tokens = max(beams * steps for beams, steps in written)
    encoder = model.encoder
    token_bytes = 2 * 2 * 4 * encoder.depth * encoder.hidden_size
    logits_bytes = 2 * 4 * beams * encoder.vocabulary_size
    budget = budget_of(next(model.parameters()).device)

    def rows(width: int) -> int:
        return max(1, budget // (token_bytes * (width + tokens) + logits_bytes))

    return rows


def budget_of(device: torch.device) -> int:
    """Bytes that a batch may keep on a device."""
    if device.type != "cuda":
        return DECODING_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    # What batches before left in torch's hands is free too, or each call would have fewer rows.
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(SHARE_OF_GPU * (free + unused))
