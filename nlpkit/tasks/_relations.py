"""What tasks of relation extraction do alike: all but the labels, the model and its decoding.

Their JSONL is `nlpkit.formats.triples`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from nlpkit.config import Length, Score, Share
from nlpkit.evaluation.metrics import MicroF1
from nlpkit.evaluation.thresholds import above, tune_threshold
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
from nlpkit.text.tokenizer import Encoding, Tokenizer, keep_whole


@dataclass(frozen=True)
class RelationSettings:
    """Settings of relation extraction, sections `casrel` and `gplinker`."""

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
    origin: str = ""
    """A name of the text that it was before strings were replaced; empty where nobody asks."""

    def __len__(self) -> int:
        return len(self.encoding)


@dataclass(frozen=True)
class Found:
    """A triple by place: the text's row, first and last tokens, the predicate's number."""

    row: int
    subject: tuple[int, int]
    object: tuple[int, int]
    predicate: int
    score: float


class Relations:
    """The methods of a task that finds triples in a text; its `config` is a `RelationSettings`."""

    monitor = "f1"
    group = "predicate"
    parse = staticmethod(parse_triples)

    @classmethod
    def prepare(
        cls, config: Any, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> Any:
        """Writes `schema.json`: the predicates with the types seen (or given) on both sides."""
        write_schema(collect_schema(records, config.schema), folder / "schema.json")
        return config

    def __init__(self, config: Any, tokenizer: Tokenizer, folder: Path | None):
        self.config = config
        self.tokenizer = tokenizer
        self.predicates = list(read_json(Schema, folder / "schema.json")) if folder else []
        self.predicate_ids = {predicate: index for index, predicate in enumerate(self.predicates)}

    def read(self, record: dict[str, Any]) -> Example:
        """Triples as objects (DuIE 1.0 and 2.0) or lists [subject, predicate, object]."""
        encoding = self.tokenizer.encode(read_text(record))
        gold = self.parse(record) if record.get("spo_list") is not None else None
        return Example(encoding, gold, annotated_predicates(record))

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
            return replace(example, encoding=self.tokenizer.encode(text), gold=Prediction(triples))

        return augment

    def windows(self, example: Example) -> list[Example]:
        """Overlapping windows; a triple is labelled in every window that holds both its spans."""
        return text_windows(self.tokenizer, example, self.config.max_length)

    def annotated(self, examples: Sequence[Example]) -> torch.Tensor:
        """annotated_BP: whether each text was annotated for each predicate."""
        annotated_BP = torch.ones(len(examples), len(self.predicates), dtype=torch.bool)
        for row, example in enumerate(examples):
            if example.annotated is not None:
                annotated_BP[row] = torch.tensor([p in example.annotated for p in self.predicates])
        return annotated_BP

    def triples_of(
        self, places: Iterable[Found], encodings: Sequence[Encoding]
    ) -> list[Prediction]:
        """The triples found in some texts; those of equal strings count once, with the best
        score."""
        found: list[list[Triple]] = [[] for _ in encodings]
        for place in places:
            found[place.row].append(self._triple(encodings[place.row], place))
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

    def tune(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> Any:
        """The threshold with the best F1 on (gold, loose prediction) pairs."""
        threshold = tune_threshold(
            pairs, self.facts, lambda prediction: prediction.spo_list, self._fact
        )
        return replace(self.config, threshold=threshold)

    def cut(self, prediction: Prediction, settings: Any) -> Prediction:
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
