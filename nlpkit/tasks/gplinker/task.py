r"""Relation extraction with GPLinker: entity, head and tail pointers, decoded by intersection.

    in   {"text": "《长河》是沈从文的小说", "spo_list": [{"subject": "长河", "predicate": "作者",
          "object": "沈从文"}]}
    out  {..., "prediction": {"spo_list": [{"subject": "长河", "predicate": "作者", "object": "沈从文",
          "subject_span": [1, 3], "object_span": [5, 8], "score": 4.1}]}}

A triple (s, p, o) of spans stands where each of four scores lies above the threshold:

    entity_subject(s_head, s_tail), entity_object(o_head, o_tail),
    head_p(s_head, o_head), tail_p(s_tail, o_tail)

so that nested and overlapping triples need no special case. Its `score` is the smallest of the
four.

A line may carry `predicates`, the relations it was annotated for: its silence on others is then no
"no". They are masked in the loss, and so are spans that may be entities of theirs, all but those
that overlap an entity it has.

Source: https://kexue.fm/archives/8888; published 0.827 F1 on the dev set of DuIE 1.0 with BERT-base
(170k lines).
Differs from /8888: all occurrences of a string are labelled, not the first; head and tail pointers
are rotary too, since convolutions know no positions (`rotary_links`); the loss is exact (see
`nlpkit.layers.global_pointer`); strings are compared as they stand (`match = "tokens"` is the
tolerant rule); the threshold is tuned on the dev set, not 0.
Legend: B batch, P predicates.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from nlpkit import task
from nlpkit.config import EvenSize, Length, Score, Share
from nlpkit.evaluation.metrics import MicroF1
from nlpkit.evaluation.thresholds import above, threshold_for, tune_threshold
from nlpkit.formats.finding import Finding
from nlpkit.formats.text import read_text, text_windows
from nlpkit.formats.triples import (
    Prediction,
    Schema,
    Triple,
    annotated_predicates,
    best_of,
    check_triples,
    collect_schema,
    parse_triples,
    replace_strings,
    triple_pool,
    write_schema,
)
from nlpkit.formats.typed import read_json
from nlpkit.layers.span_decoding import with_rows
from nlpkit.tasks.gplinker.model import Batch, Found, Model
from nlpkit.text.tokenizer import Encoding, Tokenizer, keep_whole

Cell = tuple[int, int, int]  # head, i, j


@dataclass(frozen=True)
class Settings:
    """Settings, section `gplinker`."""

    head: Literal["efficient", "standard"] = "efficient"
    """Efficient GlobalPointer (one query and key for all predicates) or the standard one (one for
    each)."""
    head_size: EvenSize = 64
    """Size of a query or key."""
    rotary_links: bool = True
    """Rotary positions in the head and tail pointers too: pairs nearby strings sooner than far
    ones."""
    initial_score: Score = -7.0
    """Where the scores of the efficient heads start."""
    schema: str | None = None
    """A file with one relation a line, a name or DuIE's JSON; none takes the relations of the
    training data."""
    threshold: Score | None = None
    """A triple is predicted where its score lies above; none: tuned on the dev set at every
    evaluation."""
    max_length: Length = 512
    """Longer texts are cut to overlapping windows of so many tokens (fewer where the encoder takes
    fewer)."""
    replace: Share = 0.5
    """Chance of a subject or object to be replaced, while training, by another of the same
    predicate's."""
    match: Literal["strict", "tokens"] = "strict"
    """Two triples are equal if their strings are (strict), or if their tokens are (tokens)."""


@dataclass(frozen=True)
class Example:
    """A text, its triples, and the predicates it was annotated for (None: all)."""

    encoding: Encoding
    gold: Prediction | None
    annotated: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.encoding)


class Task(task.Task[Example, Batch, Prediction]):
    """See the module docstring."""

    Config = Settings
    monitor = "f1"
    group = "predicate"
    parse = staticmethod(parse_triples)

    @classmethod
    def prepare(
        cls, config: Settings, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> Settings:
        """Writes `schema.json`: the predicates with the types seen (or given) on both sides."""
        write_schema(collect_schema(records, config.schema), folder / "schema.json")
        return config

    def __init__(self, config: Settings, tokenizer: Tokenizer, folder: Path | None):
        self.config = config
        self.tokenizer = tokenizer
        self.predicates = list(read_json(Schema, folder / "schema.json")) if folder else []
        self.predicate_ids = {predicate: index for index, predicate in enumerate(self.predicates)}

    def read(self, record: dict[str, Any]) -> Example:
        """Triples as objects (DuIE 1.0 and 2.0) or lists [subject, predicate, object]."""
        encoding = self.tokenizer.encode(read_text(record))
        gold = self.parse(record) if record.get("spo_list") is not None else None
        return Example(encoding, gold, annotated_predicates(record))

    def labels(self, encoding: Encoding, triples: list[Triple]) -> tuple[np.ndarray, ...]:
        """(head, i, j) cells of the entity, head and tail pointers: all occurrences of every
        triple's strings."""
        entity: set[Cell] = set()
        head: set[Cell] = set()
        tail: set[Cell] = set()
        for triple in triples:
            predicate = self.predicate_ids.get(triple.predicate)
            if predicate is None:
                continue
            subjects = encoding.find(triple.subject)
            objects = encoding.find(triple.object)
            for (s_first, s_end), (o_first, o_end) in itertools.product(subjects, objects):
                entity.add((0, s_first, s_end - 1))
                entity.add((1, o_first, o_end - 1))
                head.add((predicate, s_first, o_first))
                tail.add((predicate, s_end - 1, o_end - 1))
        return tuple(
            np.array(sorted(cells), dtype=np.int64).reshape(-1, 3) for cells in (entity, head, tail)
        )

    def augmenter(self, examples: Sequence[Example]) -> Callable[[Example, Any], Example] | None:
        """Replaces subjects and objects by others of the same predicate's, in texts of a single
        window."""
        if not self.config.replace:
            return None
        pool = triple_pool(example.gold.spo_list for example in examples if example.gold)

        def augment(example: Example, random: Any) -> Example:
            if example.gold is None or example.encoding.is_part:
                return example
            old, rate = example.encoding.text, self.config.replace
            text, triples = replace_strings(old, example.gold.spo_list, pool, rate, random)
            if text == old:
                return example
            return Example(self.tokenizer.encode(text), Prediction(triples), example.annotated)

        return augment

    def windows(self, example: Example) -> list[Example]:
        """Overlapping windows; a triple is labelled in every window that holds both its spans."""
        return text_windows(self.tokenizer, example, self.config.max_length)

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """Pads the texts; with targets, the labels become cells with the text's row in front."""
        encodings = [example.encoding for example in examples]
        annotated_BP = torch.ones(len(examples), len(self.predicates), dtype=torch.bool)
        for row, example in enumerate(examples):
            if example.annotated is not None:
                annotated_BP[row] = torch.tensor([p in example.annotated for p in self.predicates])
        cells = None
        if targets:
            labels = [self.labels(e.encoding, e.gold.spo_list if e.gold else []) for e in examples]
            cells = tuple(with_rows(pointer) for pointer in zip(*labels, strict=True))
        return Batch(encodings, self.tokenizer.collate(encodings), cells, annotated_BP)

    def build_model(self, encoder: nn.Module) -> Model:
        """Encoder and pointers with fresh weights for the pointers."""
        return Model(encoder, len(self.predicates), self.config)

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """The triples above the threshold; those of equal strings count once, with the best
        score."""
        threshold = threshold_for(self.config.threshold, loose)
        found: list[list[Triple]] = [[] for _ in batch.encodings]
        for place in model.triples(batch.tokens, threshold, loose):
            found[place.row].append(self._triple(batch.encodings[place.row], place))
        return [Prediction(best_of(triples)) for triples in found]

    def _triple(self, encoding: Encoding, place: Found) -> Triple:
        subject = encoding.char_span((place.subject[0], place.subject[1] + 1))
        object_ = encoding.char_span((place.object[0], place.object[1] + 1))
        return Triple(
            encoding.text[slice(*subject)],
            self.predicates[place.predicate],
            encoding.text[slice(*object_)],
            subject,
            object_,
            round(place.score, 4),
        )

    def merge(self, example: Example, predictions: Sequence[Prediction]) -> Prediction:
        """The union over the windows, by place in the text, without spans that a window cut."""
        windows = self.tokenizer.windows(example.encoding, self.config.max_length)
        found = keep_whole(
            windows, [p.spo_list for p in predictions], lambda t: (t.subject_span, t.object_span)
        )
        return Prediction(
            sorted(best_of(found), key=lambda t: (t.subject_span, t.object_span, t.predicate))
        )

    @property
    def tunes(self) -> bool:
        """Whether the threshold was left open."""
        return self.config.threshold is None

    def tune(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> Settings:
        """The threshold with the best F1 on (gold, loose prediction) pairs."""
        threshold = tune_threshold(
            pairs, self.facts, lambda prediction: prediction.spo_list, self._fact
        )
        return replace(self.config, threshold=threshold)

    def cut(self, prediction: Prediction, settings: Settings) -> Prediction:
        """The triples above the threshold."""
        return Prediction(above(settings.threshold, prediction.spo_list))

    def restrict_to_annotated(self, example: Example, prediction: Prediction) -> Prediction:
        """Without triples of predicates that the line was not annotated for."""
        if example.annotated is None:
            return prediction
        return Prediction(
            [triple for triple in prediction.spo_list if triple.predicate in example.annotated]
        )

    def facts(self, prediction: Prediction) -> dict[Any, str]:
        """(subject, predicate, object) under its predicate."""
        return {self._fact(triple): triple.predicate for triple in prediction.spo_list}

    def _fact(self, triple: Triple) -> tuple[Any, str, Any]:
        if self.config.match == "strict":
            return triple.subject, triple.predicate, triple.object
        return (
            self.tokenizer.token_ids(triple.subject),
            triple.predicate,
            self.tokenizer.token_ids(triple.object),
        )

    def score(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
        """Micro precision, recall and F1 of triples."""
        counts = MicroF1()
        for gold, prediction in pairs:
            counts.add(self.facts(gold), self.facts(prediction))
        return {**counts.total(), "match": self.config.match}

    def report(self, example: Example) -> Iterator[Finding]:
        """What of the gold triples the model cannot see."""
        triples = example.gold.spo_list if example.gold else []
        windows = [window.encoding for window in self.windows(example)]
        return check_triples(triples, windows, self.predicate_ids)
