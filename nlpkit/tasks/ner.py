r"""Named entities with GlobalPointer: a score for every span and label.

    in   {"text": "郑阿姨去了文汇路", "entities": [{"start": 0, "end": 3, "label": "name"}]}
    out  {..., "prediction": {"entities": [{"start": 0, "end": 3, "label": "name", "text": "郑阿姨",
         "score": 5.2}]}}

Spans are half-open, in characters of the text as given; nested and overlapping entities need no
special case.

Source: https://kexue.fm/archives/8373 and /8877; published on CLUENER with BERT-base: 80.03 F1
(standard) and 80.66 (efficient) on the validation set.
Differs from /8373: the loss is exact (see `nlpkit.layers.global_pointer`); the threshold is tuned
on the dev set.
Measured: CLUENER, 10,748 lines, `--encoder dgcnn` with default settings (10 epochs, batch 16,
AdamW; commit 8517958), dev F1 of seeds 1, 2, 3: 0.742, 0.742, 0.744 in 17 to 19 minutes on one core
of a Zen 5. Figures of `tiny` are in its README.
Legend: B batch, T tokens, P labels.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from nlpkit import task
from nlpkit.config import EvenSize, Length, Score, Share
from nlpkit.encoders.base import encode
from nlpkit.errors import DataError, RecordError
from nlpkit.evaluation.metrics import MicroF1
from nlpkit.evaluation.thresholds import above, threshold_for, tune_threshold
from nlpkit.formats.entities import Entity, Prediction, parse_entities
from nlpkit.formats.finding import Finding
from nlpkit.formats.text import read_text, text_windows
from nlpkit.formats.typed import read_json
from nlpkit.jsonl import write_atomic
from nlpkit.layers.global_pointer import GlobalPointer, PairScores, multilabel_loss
from nlpkit.layers.span_decoding import spans_above, with_rows
from nlpkit.text.batch import TensorFields
from nlpkit.text.replacement import build_pool, replace_spans
from nlpkit.text.tokenizer import Encoding, TokenBatch, Tokenizer, keep_whole


@dataclass(frozen=True)
class Settings:
    """Settings, section `ner`."""

    head: Literal["efficient", "standard"] = "efficient"
    """Efficient GlobalPointer (one query and key for all labels) or the standard one (one for
    each)."""
    head_size: EvenSize = 64
    """Size of a query or key."""
    initial_score: Score = -6.0
    """Where the scores of the efficient head start."""
    threshold: Score | None = None
    """An entity is predicted where its score lies above; none: tuned on the dev set at every
    evaluation."""
    max_length: Length = 512
    """Longer texts are cut to overlapping windows of so many tokens (fewer where the encoder takes
    fewer)."""
    replace: Share = 0.3
    """Chance of an entity to be replaced, while training, by another of its label's."""
    match: Literal["strict", "tokens"] = "strict"
    """Two entities are equal if label and characters are (strict), or label and the tokens of the
    string (tokens)."""


@dataclass(frozen=True)
class Example:
    """A text and its entities."""

    encoding: Encoding
    gold: Prediction | None

    def __len__(self) -> int:
        return len(self.encoding)


@dataclass(frozen=True)
class Batch(TensorFields):
    """Tokens and, where gold is known, its cells (text, label, first token, last token)."""

    encodings: list[Encoding]
    tokens: TokenBatch
    gold_N4: torch.Tensor | None


class Model(nn.Module):
    """Encoder and pointer."""

    def __init__(self, encoder: Any, labels: int, config: Settings):
        super().__init__()
        self.encoder = encoder
        self.pointer = GlobalPointer(
            encoder.hidden_size,
            labels,
            config.head_size,
            efficient=config.head == "efficient",
            initial_score=config.initial_score,
        )

    def outputs(self, batch: Batch) -> PairScores:
        """Scores of all spans and labels."""
        return self.pointer(encode(self.encoder, batch.tokens), batch.tokens.content_BT)

    def log_probs(self, scores: PairScores) -> torch.Tensor:
        """Whether each span is an entity of each label: (B, P T T, 2)."""
        return scores.log_probs()

    def forward(self, batch: Batch) -> torch.Tensor:
        """The loss of each text, summed over labels: (B,)."""
        assert batch.gold_N4 is not None
        terms_2BP = torch.stack(multilabel_loss(self.outputs(batch), batch.gold_N4))
        return terms_2BP.sum(0).sum(1)


class Task(task.Task[Example, Batch, Prediction]):
    """See the module docstring."""

    Config = Settings
    monitor = "f1"
    group = "label"

    @classmethod
    def prepare(
        cls, config: Settings, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> Settings:
        """Writes `labels.json`: the labels of the data, sorted.

        Raises DataError for a bad record, or where no record has an entity.
        """
        labels: set[str] = set()
        for where, record in records:
            try:
                text = read_text(record)
                found = [] if record.get("entities") is None else parse_entities(record, text)
                labels |= {entity.label for entity in found}
            except RecordError as error:
                raise error.at(where) from None
        if not labels:
            raise DataError("no line has entities: there is no label to learn")
        with write_atomic(folder / "labels.json") as stream:
            stream.write(json.dumps(sorted(labels), ensure_ascii=False).encode() + b"\n")
        return config

    def __init__(self, config: Settings, tokenizer: Tokenizer, folder: Path | None):
        self.config = config
        self.tokenizer = tokenizer
        self.labels: list[str] = read_json(list[str], folder / "labels.json") if folder else []
        self.label_ids = {label: index for index, label in enumerate(self.labels)}

    def read(self, record: dict[str, Any]) -> Example:
        """`text` and, where there is gold, `entities` with `start`, `end` and `label`."""
        text = read_text(record)
        gold = None if record.get("entities") is None else Prediction(parse_entities(record, text))
        return Example(self.tokenizer.encode(text), gold)

    def parse(self, value: dict[str, Any]) -> Prediction:
        """The entities of `entities`; without the text their spans cannot be checked."""
        return Prediction(parse_entities(value, None))

    def labels_of(self, encoding: Encoding, entities: list[Entity]) -> np.ndarray:
        """The (label, first token, last token) of the entities that lie in the encoding: (N, 3)."""
        cells = set()
        for entity in entities:
            label = self.label_ids.get(entity.label)
            span = encoding.token_span((entity.start, entity.end))
            if label is not None and span:
                cells.add((label, span[0], span[1] - 1))
        return np.array(sorted(cells), dtype=np.int64).reshape(-1, 3)

    def augmenter(self, examples: Sequence[Example]) -> Callable[[Example, Any], Example] | None:
        """Replaces entities by others of the same label, in texts of a single window without nested
        entities."""
        if not self.config.replace:
            return None
        seen: list[tuple[str, str]] = []
        for example in examples:
            if example.gold:
                seen += [(entity.label, entity.text) for entity in example.gold.entities]
        pool = build_pool(seen)

        def augment(example: Example, random: Any) -> Example:
            if example.gold is None or example.encoding.is_part:
                return example
            entities = sorted(example.gold.entities, key=lambda e: e.start)
            chosen = [random.random() < self.config.replace for _ in entities]
            if not any(chosen) or any(a.end > b.start for a, b in itertools.pairwise(entities)):
                return example
            strings = []
            for entity, is_replaced in zip(entities, chosen, strict=True):
                string = entity.text
                if is_replaced:
                    others = pool[entity.label]
                    string = others[random.integers(len(others))]
                strings.append(string)
            old = [(entity.start, entity.end) for entity in entities]
            text, spans = replace_spans(example.encoding.text, old, strings)
            new = []
            for (start, end), entity, string in zip(spans, entities, strings, strict=True):
                new.append(Entity(start, end, entity.label, string))
            return Example(self.tokenizer.encode(text), Prediction(new))

        return augment

    def windows(self, example: Example) -> list[Example]:
        """Overlapping windows; an entity is labelled in every window that holds it."""
        return text_windows(self.tokenizer, example, self.config.max_length)

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """Pads the texts; with targets, the labels become cells with the text's row in front."""
        encodings = [example.encoding for example in examples]
        gold_N4 = None
        if targets:
            gold_N4 = with_rows(
                [self.labels_of(e.encoding, e.gold.entities if e.gold else []) for e in examples]
            )
        return Batch(encodings, self.tokenizer.collate(encodings), gold_N4)

    def build_model(self, encoder: nn.Module) -> Model:
        """Encoder and a pointer with fresh weights."""
        return Model(encoder, len(self.labels), self.config)

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """The spans above the threshold, by place."""
        threshold = threshold_for(self.config.threshold, loose)
        scores_BPTT = model.outputs(batch).dense()
        found: list[list[Entity]] = [[] for _ in batch.encodings]
        for label, name in enumerate(self.labels):
            spans = spans_above(scores_BPTT[:, label], threshold, loose)
            for row, first, last, score in zip(*(t.tolist() for t in spans), strict=True):
                start, end = batch.encodings[row].char_span((first, last + 1))
                text = batch.encodings[row].text[start:end]
                found[row].append(Entity(start, end, name, text, round(score, 4)))
        return [
            Prediction(sorted(entities, key=lambda e: (e.start, e.end, e.label)))
            for entities in found
        ]

    def merge(self, example: Example, predictions: Sequence[Prediction]) -> Prediction:
        """The union over the windows, by place, without spans that a window cut; found twice, the
        best score counts."""
        best: dict[tuple[int, int, str], Entity] = {}
        windows = self.tokenizer.windows(example.encoding, self.config.max_length)
        found = [prediction.entities for prediction in predictions]
        for entity in keep_whole(windows, found, lambda e: [(e.start, e.end)]):
            key = entity.start, entity.end, entity.label
            best[key] = max(entity, best.get(key, entity), key=lambda e: e.score or 0.0)
        return Prediction([best[key] for key in sorted(best)])

    @property
    def tunes(self) -> bool:
        """Whether the threshold was left open."""
        return self.config.threshold is None

    def tune(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> Settings:
        """The threshold with the best F1 on (gold, loose prediction) pairs."""
        threshold = tune_threshold(
            pairs, self.facts, lambda prediction: prediction.entities, self._fact
        )
        return replace(self.config, threshold=threshold)

    def cut(self, prediction: Prediction, settings: Settings) -> Prediction:
        """The entities above the threshold."""
        return Prediction(above(settings.threshold, prediction.entities))

    def facts(self, prediction: Prediction) -> dict[Any, str]:
        """(label, start, end) under its label; under `match = "tokens"` (label, tokens)."""
        return {self._fact(entity): entity.label for entity in prediction.entities}

    def _fact(self, entity: Entity) -> tuple[Any, ...]:
        if self.config.match == "strict":
            return entity.label, entity.start, entity.end
        return entity.label, *self.tokenizer.token_ids(entity.text)

    def score(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
        """Micro precision, recall and F1 of labelled spans."""
        counts = MicroF1()
        for gold, prediction in pairs:
            counts.add(self.facts(gold), self.facts(prediction))
        return {**counts.total(), "match": self.config.match}

    def report(self, example: Example) -> Iterator[Finding]:
        """Entities of an unknown label, not of whole tokens, or cut by every window."""
        windows = [window.encoding for window in self.windows(example)]
        for entity in example.gold.entities if example.gold else ():
            name = f'{entity.label} "{entity.text}" at {entity.start}'
            if self.labels and entity.label not in self.label_ids:
                yield Finding("unknown label", name, self._fact(entity))
            if not example.encoding.token_span((entity.start, entity.end)):
                yield Finding("not of whole tokens", name, self._fact(entity))
            elif not any(window.token_span((entity.start, entity.end)) for window in windows):
                yield Finding("in no window", name, self._fact(entity))
