"""When a training writes its checkpoint, and where."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

from nlpkit.encoders.tensor_file import load_tensors, save_tensors
from nlpkit.training.loop import Evaluation, Step
from nlpkit.training.state import TrainState

CHECKPOINT = "checkpoint.safetensors"
EVERY = 300  # seconds; besides, one after every evaluation

Event = Step | Evaluation


def kept(
    events: Iterable[Event], state: TrainState, save: Callable[[Event], None]
) -> Generator[Event, None, bool]:
    """The events of a training, each passed on after `save(event)` where something is to be
    written.

    That is after every evaluation, at an interruption, with which it ends, and every EVERY seconds,
    but not with several processes: their clocks differ, and all must write together. Returns
    whether the training came to its end.
    """
    saved = time.monotonic()
    for event in events:
        interrupted = isinstance(event, Step) and event.interrupted
        is_due = state.accelerator.num_processes == 1 and time.monotonic() - saved > EVERY
        if isinstance(event, Evaluation) or interrupted or is_due:
            save(event)
            saved = time.monotonic()
        yield event
        if interrupted:
            return False
    return True


def write_state(state: TrainState, folder: Path) -> None:
    """Writes the checkpoint; all processes must call it."""
    tensors, plain = state.state()
    if state.accelerator.is_main_process:
        save_tensors(folder / CHECKPOINT, tensors, plain)


def read_state(state: TrainState, folder: Path) -> None:
    """Takes the training up where the checkpoint was written. Raises SettingsError for a damaged
    one."""
    state.restore(*load_tensors(folder / CHECKPOINT))
