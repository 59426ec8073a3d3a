"""START HERE: what a task is, and the way of the data.

    JSONL line --read_jsonl--> dict --task.read--> Example --task.collate--> Batch --model--> loss_B          (train)
                                                                               |
                                                                         task.decode
                                                                               v
    JSONL line <-with_field--- dict <---asdict---------------------------- Prediction
                                                                               |
                                 Example.gold ------------------ task.score ---+------> metrics               (eval)

A long text is cut into windows (`task.windows`) between `read` and `collate`; `task.merge` joins
their predictions. Gold and prediction have one type, so that training, `eval` of a model and `eval`
of a file share one scorer.

A new task is one file `nlpkit/tasks/<name>.py` with a class `Task` of the methods below, a grammar
of made-up data `nlpkit/samples/<name>.py`, and ten lines in `tests/golden/<name>/sample.jsonl` for
the contract test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from torch import nn

from nlpkit.formats.finding import Finding
from nlpkit.text.tokenizer import Tokenizer

P = TypeVar("P")  # Prediction: a dataclass; asdict of it is what the user gets
P_co = TypeVar("P_co", covariant=True)


class Example(Protocol[P_co]):
    """A record as the model will see it."""

    @property
    def gold(self) -> P_co | None:
        """What is to be predicted, or None where the record does not say."""
        ...

    def __len__(self) -> int:
        """Tokens, for batches of equal length."""
        ...


class Batch(Protocol):
    """Tensors of some examples, with or without targets."""

    def to(self, device: Any) -> Batch:
        """The batch on a device."""
        ...


E = TypeVar("E", bound=Example[Any])
B = TypeVar("B", bound=Batch)


class Task(Protocol[E, B, P]):
    """The methods of a task, in the order of the data. A task holds no weights.

    A task may name this as its base class; those methods with a body here are then the defaults.
    """

    Config: ClassVar[type]
    """Frozen dataclass of settings, a docstring under every field."""
    monitor: ClassVar[str]
    """The metric that picks the best checkpoint; higher is better."""
    group: ClassVar[str]
    """What `eval --by` groups by: the second part of every value of `facts`."""
    needs_head: ClassVar[bool] = False
    """Whether the encoder comes with its masked-LM head."""
    assesses: ClassVar[bool] = False
    """Whether evaluation calls `assess` instead of `decode`."""

    config: Any

    @classmethod
    def uses_head(cls, config: Any) -> bool:
        """`needs_head`, where that depends on the settings."""
        return cls.needs_head

    @classmethod
    def prepare(
        cls, config: Any, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> Any:
        """Once, at training: reads (place, record) pairs, writes what the task needs (schema, KB)
        to the run `folder` and returns the settings completed. Raises DataError."""
        ...

    def __init__(self, config: Any, tokenizer: Tokenizer, folder: Path): ...

    def read(self, record: dict[str, Any]) -> E:
        """A JSON object as an example. Raises RecordError that names the field."""
        ...

    def numbered(self, example: E, number: int) -> E:
        """The example with the number of its line, counted from 1. It is for tasks that draw at
        random when they predict: what they draw for a line depends on their seed and on it."""
        return example

    def augmenter(self, examples: Sequence[E]) -> Callable[[E, Any], E] | None:
        """What makes another example of one each time training meets it, with a `numpy` generator;
        None for nothing."""
        return None

    def windows(self, example: E) -> list[E]:
        """The example cut to pieces that the encoder can take; the example itself where it is
        short."""
        return [example]

    def collate(self, examples: Sequence[E], *, targets: bool = True) -> B:
        """Pads examples to a batch, with what the loss needs of their gold unless `targets` is
        off."""
        ...

    def build_model(self, encoder: nn.Module) -> nn.Module:
        """A module with attribute `encoder` and model(batch) -> loss_B, one loss for each
        example."""
        ...

    def decode(self, model: Any, batch: B, *, loose: bool = False) -> list[P]:
        """One prediction a row, in order. `loose` keeps what falls below the threshold too, for
        `tune`."""
        ...

    def assess(self, model: Any, batch: B, *, brief: bool) -> list[P]:
        """`decode` for evaluation, where the batch has targets, with more that `score` wants to
        know of the model.

        `brief` while training: what takes long is left out.
        """
        return self.decode(model, batch)

    def merge(self, example: E, predictions: Sequence[P]) -> P:
        """One prediction for the example from those of its windows, in the order of `windows`."""
        return predictions[0]

    @property
    def tunes(self) -> bool:
        """Whether the settings leave a threshold to be tuned on dev."""
        return False

    def tune(self, pairs: Iterable[tuple[P, P]]) -> tuple[Any, list[P]]:
        """Settings with the thresholds tuned on loose (gold, prediction) pairs, and those
        predictions cut to them."""
        return self.config, [prediction for _, prediction in pairs]

    def judged(self, example: E, prediction: P) -> P:
        """What of a prediction the example's gold can judge: a line may be annotated for some
        labels only."""
        return prediction

    def facts(self, prediction: P) -> dict[Any, str]:
        """What a prediction states, each fact with the group it counts under. Scores compare
        these."""
        ...

    def score(self, pairs: Iterable[tuple[P, P]]) -> dict[str, Any]:
        """Metrics of (gold, prediction) pairs; they name the rule of matching."""
        ...

    def parse(self, value: dict[str, Any]) -> P:
        """A prediction as found in a file. Raises RecordError."""
        ...

    def report(self, example: E) -> Iterator[Finding]:
        """What `data check` has to say of the example's gold; a Finding with `lost` is gold no
        model can ever see."""
        return iter(())
