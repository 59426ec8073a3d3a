"""START HERE: what a task is, and the way of the data.

    JSONL line --read_jsonl--> dict --task.read--> Example --task.collate--> Batch --model--> loss_B
                                                                               |      (train)
                                                                         task.decode
                                                                               v
    JSONL line <-with_field--- dict <---asdict---------------------------- Prediction
                                                                               |
                                 Example.gold ------------------ task.score ---+--> metrics (eval)

A long text is cut into windows (`task.windows`) between `read` and `collate`; `task.merge` joins
their predictions. Gold and prediction have one type, so that training, `eval` of a model and `eval`
of a file share one scorer.

A new task is one file `nlpkit/tasks/<name>.py` with a class `Task` of the methods below, a grammar
of made-up data `nlpkit/samples/<name>.py`, and ten lines in `tests/golden/<name>/sample.jsonl` for
the contract test. What only some tasks have is a trait: a class beside `Task` that such a task also
names as its base (`Writes`, `KnowledgeBase`, `AsksRun`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from nlpkit.errors import SettingsError
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
    group: ClassVar[str]
    """What `eval --by` groups by: the second part of every value of `facts`."""
    config: Any

    @property
    def monitor(self) -> str:
        """The metric that picks the best checkpoint; higher is better. Most tasks set it as a plain
        attribute of the class."""
        ...

    @property
    def couples_examples(self) -> bool:
        """Whether the loss of an example depends on the others of its batch, as a contrastive loss
        does.

        The batch of a step is then never cut to smaller ones, which would change the loss; unless
        the model is a `CoupledModel`, whose steps are exact however they are cut.
        """
        return False

    @classmethod
    def needs_head(cls, config: Any) -> bool:
        """Whether, under these settings, the encoder comes with its masked-LM head."""
        return False

    @classmethod
    def needs_extend(cls, config: Any) -> bool:
        """Whether, under these settings, it predicts with `encoder.extend`: one token after another,
        from the keys and values of those before."""
        return False

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
        """The example of line `number` of its file, counted from 1.

        A task that draws at random when it predicts keeps the number: what it draws follows from
        its seed and this number alone, so that a line gives the same whatever stands around it.
        """
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

    def evaluate(
        self, model: Any, batch: B, *, loose: bool = False, brief: bool = False
    ) -> list[P]:
        """`decode` for `score`: a task may add what it can only measure with the model at hand.

        `brief` while training: what takes long may be left out.
        """
        return self.decode(model, batch, loose=loose)

    def merge(self, example: E, predictions: Sequence[P]) -> P:
        """One prediction for the example from those of its windows, in the order of `windows`."""
        return predictions[0]

    @property
    def tunes(self) -> bool:
        """Whether the settings leave a threshold to be tuned on dev."""
        return False

    def tune(self, pairs: Iterable[tuple[P, P]]) -> Any:
        """Settings with the thresholds tuned on loose (gold, prediction) pairs."""
        return self.config

    def cut(self, prediction: P, settings: Any) -> P:
        """What of a loose prediction remains under the thresholds of tuned settings."""
        return prediction

    def restrict_to_annotated(self, example: E, prediction: P) -> P:
        """What of a prediction the example's gold can decide on: a line may be annotated for some
        labels only. Scores take this in place of the prediction."""
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


class Writes:
    """A trait of a task: it writes one token after another, with `encoder.extend` and the encoder's
    masked-LM head. `beams_and_steps` of an example, all its rows together, bounds what is kept."""

    beams_and_steps: Callable[[Any], tuple[int, int]]

    @classmethod
    def needs_head(cls, config: Any) -> bool:
        """Yes."""
        return True

    @classmethod
    def needs_extend(cls, config: Any) -> bool:
        """Yes."""
        return True


class KnowledgeBase:
    """A trait of a task: it looks things up in a file of facts, which `--kb` names.

    Its settings have `kb`, the path of the file, and `kb_sha256`, the hash of the content that
    training has seen (None: any content will do).
    """

    config: Any

    @staticmethod
    def kb_settings(path: str) -> dict[str, Any]:
        """The settings that `--kb path` stands for: the file, whatever its content."""
        return {"kb": path, "kb_sha256": None}

    @classmethod
    def required_kb(cls, config: Any, section: str, example: str) -> str:
        """The path of the knowledge base. Raises SettingsError where the settings name none.

        `section` is that of the settings, `example` a file name for the hint.
        """
        if not config.kb:
            raise SettingsError(
                f"{section}.kb: expected a knowledge base, got none", hint=f"--kb {example}"
            )
        return config.kb

    @classmethod
    def build_trie(cls, path: str, tokenizer: Tokenizer) -> Any:
        """The knowledge base as a `TokenTrie`, for `nlpkit trie build --task`.

        Raises SettingsError where the task keeps its knowledge base in another form, DataError for
        a line that is none of a knowledge base.
        """
        raise SettingsError("the knowledge base of this task is no trie")


@runtime_checkable
class CoupledModel(Protocol):
    """A trait of a model: its loss couples the examples of a step, and sees of each no more than a
    few vectors and numbers.

    So a step can be cut, and shared by processes, with the gradient of the whole: see
    `nlpkit.training.gradient_cache`. Legend: B examples, N vectors of an example, H their size,
    K numbers of an example.
    """

    def example_vectors(self, batch: Any) -> torch.Tensor:
        """The vectors of each example: (B, N, H). All that is learnt goes into these."""
        ...

    def example_numbers(self, batch: Any) -> torch.Tensor:
        """What the loss has to know of each example besides: (B, K) float64; whole numbers below
        2**53 are exact."""
        ...

    def coupled_loss(self, vectors_BNH: torch.Tensor, numbers_BK: torch.Tensor) -> torch.Tensor:
        """The losses of all examples of a step: (B,). It has no weights and draws nothing at
        random."""
        ...


@runtime_checkable
class AsksRun(Protocol):
    """A trait of a task: a metric that another trained model gives, as a classifier's of texts."""

    asked_setting: ClassVar[str]
    """The setting that names the folder of the other run, as `section.key`."""
    asked_task: ClassVar[str]
    """The task that the other run must be of."""
    config: Any

    @property
    def asked_run(self) -> str:
        """The folder of the other run; empty where the settings name none."""
        return getattr(self.config, self.asked_setting.rpartition(".")[2])

    def with_answers(
        self, predictions: Sequence[Any], ask: Callable[[list[dict[str, Any]]], list[Any]]
    ) -> list[Any]:
        """The predictions with what the other run says of them, for `score`.

        `ask` gives the other run's predictions for some records, in order.
        """
        ...
