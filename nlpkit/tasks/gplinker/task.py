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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import nn

from nlpkit import task
from nlpkit.config import EvenSize, Score
from nlpkit.evaluation.thresholds import threshold_for
from nlpkit.formats.triples import Prediction, Triple
from nlpkit.layers.span_decoding import with_rows
from nlpkit.tasks._relations import Example, Relations, RelationSettings
from nlpkit.tasks.gplinker.model import Batch, Model
from nlpkit.text.tokenizer import Encoding

Cell = tuple[int, int, int]  # head, i, j


@dataclass(frozen=True)
class Settings(RelationSettings):
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


class Task(Relations, task.Task[Example, Batch, Prediction]):
    """See the module docstring."""

    Config = Settings

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

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """Pads the texts; with targets, the labels become cells with the text's row in front."""
        encodings = [example.encoding for example in examples]
        cells = None
        if targets:
            labels = [self.labels(e.encoding, e.gold.spo_list if e.gold else []) for e in examples]
            cells = tuple(with_rows(pointer) for pointer in zip(*labels, strict=True))
        return Batch(encodings, self.tokenizer.collate(encodings), cells, self.annotated(examples))

    def build_model(self, encoder: nn.Module) -> Model:
        """Encoder and pointers with fresh weights for the pointers."""
        return Model(encoder, len(self.predicates), self.config)

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """The triples above the threshold; those of equal strings count once, with the best
        score."""
        threshold = threshold_for(self.config.threshold, loose)
        places = model.triples(batch.tokens, threshold, loose)
        return self.triples_of(places, batch.encodings)
