"""Lines without gold beside those of a training (`train.unlabelled`): which of them a step has.

They are shuffled, cut into batches and shared by processes as the others are, but by themselves: the
batches of the lines with gold, and the steps of an epoch, stay what they are. Gold that a line
has must be well-formed, and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nlpkit.training.batching import Batches, cut, own_part
from nlpkit.training.dataset import Records, read_examples
from nlpkit.training.settings import TrainConfig


@dataclass(frozen=True)
class Unlabelled:
    """The lines without gold of a training. Call it with a step, counted from 0: this process's
    micro-batches, without targets."""

    task: Any
    examples: list[Any]
    batches: Batches
    config: TrainConfig
    accelerator: Any

    def __call__(self, step: int) -> Iterator[Any]:
        mine = [self.examples[index] for index in own_part(self.batches, step, self.accelerator)]
        lengths = [len(example) for example in mine]
        for places in cut(lengths, self.config, self.accelerator.device):
            yield self.task.collate([mine[place] for place in places], targets=False)


def unlabelled_batches(
    task: Any, records: Records, config: TrainConfig, accelerator: Any
) -> Unlabelled:
    """The batches of the records: of `batch_size` lines, or as many tokens where `batch_by` says so.

    Raises DataError for a line that the task cannot read.
    """
    examples: list[Any] = []
    for example in read_examples(task, records.pairs, gold=False):
        examples += task.windows(example)
    lengths = [len(example) for example in examples]
    batches = Batches(lengths, config.batch_size, config.seed, config.batch_by == "tokens")
    return Unlabelled(task, examples, batches, config, accelerator)
