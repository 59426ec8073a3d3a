r"""Classification: one label for a text, of those that training has seen.

    in   {"text": "送得很快，味道也好", "label": "好评"}
    out  {..., "prediction": {"label": "好评", "score": 0.97,
         "candidates": [{"label": "好评", "score": 0.97}, ...]}}

    p(label | text) = softmax(W pooled + b)
    pooled = [ hidden of [CLS] ; mean of hidden over the text's tokens ]

A score is a probability; the loss is -log p(label) in nats. A long text is cut to windows: each
learns the label, and their probabilities are averaged, weighted by their tokens. `macro_f1` is the
mean over the labels of gold of 2 correct / (gold + predicted).

With `head=closed_form` nothing is trained: W and b are computed from one pass over the data, with
the encoder as it is (`nlpkit.layers.linear_discriminant`). Of the reviews of ChnSentiCorp and Waimai
together, without doubles and in random order, 4,000 to learn from and 1,793 others: accuracy 0.806
after a minute of one core; two epochs of training, seed 1, have 0.889 after nine (30 November 2026).

    nlpkit train classification --data train.jsonl --dev dev.jsonl --encoder tiny \
        --set classification.head=closed_form --set train.precision=fp32

`vib` puts a bottleneck between `pooled` and the classifier (`nlpkit.layers.bottleneck`). With `gan`
the classifier also learns from vectors of each label that a generator makes up, which is trained
against a critic (`nlpkit.layers.adversarial`); they are weighed by `gan`. It does not pay with 16
or 64 lines a label (`tests/benchmarks/training_science.md`).
`taylor` takes another softmax (`nlpkit.layers.taylor_softmax`).

Source: Devlin et al. 2018, arxiv.org/abs/1810.04805, section 4.1.
Differs from it: the mean stands beside [CLS], which an encoder that was not pretrained on pairs has
no use for.
Legend: B batch, T tokens, H hidden, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import nn

from nlpkit import task
from nlpkit.config import Length, Range, Rate, Size, Weight
from nlpkit.errors import RecordError, SettingsError
from nlpkit.evaluation.metrics import MicroF1
from nlpkit.formats.finding import Finding
from nlpkit.formats.labels import find_labels, label_ids, read_label, read_labels, write_labels
from nlpkit.formats.text import read_text, text_windows
from nlpkit.formats.typed import read_dataclass
from nlpkit.layers.taylor_softmax import TaylorScores
from nlpkit.tasks._classifiers import (
    AdversarialModel,
    Batch,
    BottleneckModel,
    ClosedFormModel,
    Model,
)
from nlpkit.text.tokenizer import Encoding, Tokenizer


@dataclass(frozen=True)
class Settings:
    """Settings, section `classification`."""

    candidates: Size = 5
    """Labels listed for every text, the likeliest first."""
    dropout: Rate = 0.1
    """Of the pooled vector."""
    head: Literal["trained", "closed_form"] = "trained"
    """`closed_form`: the classifier is computed in one pass over the data, and the encoder stays as
    it is: a baseline in seconds."""
    max_length: Length = 256
    """Longer texts are cut to overlapping windows of so many tokens (fewer where the encoder takes
    fewer)."""
    vib: Weight = 0.0
    """Cost of a nat that passes a variational information bottleneck before the classifier; 0 for
    no bottleneck."""
    gan: Weight = 0.0
    """Of the loss on vectors that a generator makes up for each label, meant for few lines a label; 0
    for no generator."""
    gan_critic: Literal["penalty", "normalised", "normalised_squared", "spectral"] = "penalty"
    """With `gan`: by which way the critic changes slowly with its input."""
    gan_noise: Size = 32
    """With `gan`: numbers of the noise from which a vector is made."""
    gan_penalty: Weight = 10.0
    """With `gan_critic=penalty`: of the squared difference of the gradient's length from 1."""
    shrinkage: Annotated[float, Range(above=0, most=1)] = 0.1
    """With `closed_form`: how far the covariance of the features is taken to its diagonal."""
    taylor: Literal[0, 2, 4, 6, 8, 10] = 0
    """Order of a polynomial that stands for the exponential of the softmax, so that no probability
    comes close to 0; 0 for the exponential."""


@dataclass(frozen=True)
class Candidate:
    """A label and its probability."""

    label: str
    score: float


@dataclass(frozen=True)
class Prediction:
    """The likeliest label, and the others."""

    label: str
    score: float | None = None
    candidates: list[Candidate] = field(default_factory=list)


@dataclass(frozen=True)
class Example:
    """A text and its label."""

    encoding: Encoding
    gold: Prediction | None
    drawn: Any = None
    """What a vector of its label is made up from, or the seed of a bottleneck's noise, as an array;
    None where it is not drawn yet."""

    def __len__(self) -> int:
        return len(self.encoding)


class Task(task.Task[Example, Batch, Prediction]):
    """See the module docstring."""

    Config = Settings
    monitor = "accuracy"
    group = "label"

    @classmethod
    def prepare(
        cls, config: Settings, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> Settings:
        """Writes `labels.json`: the labels of the data, sorted."""
        write_labels(folder, find_labels(records))
        return config

    def __init__(self, config: Settings, tokenizer: Tokenizer, folder: Path | None):
        self.config = config
        self.tokenizer = tokenizer
        self.labels = read_labels(folder)
        self.label_ids = label_ids(self.labels)

    def read(self, record: dict[str, Any]) -> Example:
        """`text` and, where there is gold, `label`: a string or a whole number.

        Raises RecordError for a field of another form.
        """
        label = read_label(record.get("label"))
        return Example(
            self.tokenizer.encode(read_text(record)), None if label is None else Prediction(label)
        )

    def parse(self, value: dict[str, Any]) -> Prediction:
        """A prediction from a file. Raises RecordError where it has no label."""
        label = read_label(value.get("label"))
        if label is None:
            raise RecordError('missing field "label"')
        return read_dataclass(Prediction, {**value, "label": label})

    def windows(self, example: Example) -> list[Example]:
        """Overlapping windows of a long text."""
        return text_windows(self.tokenizer, example, self.config.max_length)

    def augmenter(self, examples: Sequence[Example]) -> Callable[[Example, Any], Example] | None:
        """With `gan` draws what each example's vector is made from, with `vib` the seed of its noise,
        so that they are the same however a batch is cut."""

        def vector(example: Example, random: Any) -> Example:
            noise = random.standard_normal(self.config.gan_noise)
            return replace(example, drawn=np.append(noise, random.random()).astype(np.float32))

        def seed(example: Example, random: Any) -> Example:
            return replace(example, drawn=random.integers(2**63, size=1))

        if self.config.gan:
            return vector
        return seed if self.config.vib else None

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """Pads the texts."""
        drawn = [torch.from_numpy(e.drawn) for e in examples if e.drawn is not None]
        labels_B = (
            torch.tensor([self.label_ids[e.gold.label] for e in examples if e.gold])
            if targets
            else None
        )
        return Batch(
            self.tokenizer.collate([example.encoding for example in examples]),
            labels_B,
            torch.stack(drawn) if drawn else None,
        )

    def build_model(self, encoder: nn.Module) -> Model:
        """Encoder and a classifier with fresh weights."""
        model = self._new_model(encoder)
        if self.config.taylor:
            features = model.classifier.in_features
            model.classifier = TaylorScores(features, len(self.labels), self.config.taylor)
        return model

    def _new_model(self, encoder: nn.Module) -> Model:
        config = self.config
        labels = len(self.labels)
        if config.head == "closed_form":
            for name in ("vib", "gan", "taylor"):
                value = getattr(config, name)
                if value:
                    raise SettingsError(
                        f"classification.{name}: nothing is trained with head=closed_form: "
                        f"expected 0, got {value}"
                    )
            return ClosedFormModel(encoder, labels, config.shrinkage)
        if config.gan:
            if config.vib:
                raise SettingsError(
                    f"classification.gan: does not go with vib: expected 0, got {config.gan}"
                )
            return AdversarialModel(
                encoder,
                labels,
                config.dropout,
                config.gan,
                noise=config.gan_noise,
                kind=config.gan_critic,
                penalty=config.gan_penalty,
            )
        if config.vib:
            return BottleneckModel(encoder, labels, config.dropout, config.vib)
        return Model(encoder, labels, config.dropout)

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """The labels of every text with their probabilities; all labels, for `merge`."""
        p_BL = model.logits(batch.tokens).softmax(1)
        return [self._prediction(row, len(self.labels)) for row in p_BL.tolist()]

    def _prediction(self, probabilities: Sequence[float], listed: int) -> Prediction:
        ranked = sorted(
            zip(probabilities, self.labels, strict=True), key=lambda pair: (-pair[0], pair[1])
        )
        candidates = [Candidate(label, round(p, 6)) for p, label in ranked[:listed]]
        return Prediction(candidates[0].label, candidates[0].score, candidates)

    def merge(self, example: Example, predictions: Sequence[Prediction]) -> Prediction:
        """The mean of the windows' probabilities, weighted by their tokens; the best are listed."""
        sizes = [len(window) for window in self.windows(example)][: len(predictions)]
        total = dict.fromkeys(self.labels, 0.0)
        for prediction, size in zip(predictions, sizes, strict=True):
            for candidate in prediction.candidates:
                total[candidate.label] += candidate.score * size / sum(sizes)
        return self._prediction(list(total.values()), self.config.candidates)

    def facts(self, prediction: Prediction) -> dict[Any, str]:
        """The label is the only fact, and its own group."""
        return {prediction.label: prediction.label}

    def score(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
        """Accuracy, and the mean of the labels' F1."""
        counts = MicroF1()
        for gold, prediction in pairs:
            counts.add(self.facts(gold), self.facts(prediction))
        total = counts.total()
        f1 = [metrics["f1"] for metrics in counts.by_group().values() if metrics["gold"]]
        macro = round(sum(f1) / max(1, len(f1)), 6)
        return {
            "accuracy": total["recall"],
            "macro_f1": macro,
            "texts": total["gold"],
            "match": "strict",
        }

    def report(self, example: Example) -> Iterator[Finding]:
        """A label that training has not."""
        if example.gold and self.labels and example.gold.label not in self.label_ids:
            yield Finding("unknown label", example.gold.label, example.gold.label)
        if not example.encoding.text.strip():
            yield Finding("empty text", "it says nothing about its label")
