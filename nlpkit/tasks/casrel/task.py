r"""Relation extraction with CasRel: subjects first, then the objects of each by predicate.

    in   {"text": "《长河》是沈从文的小说", "spo_list": [{"subject": "长河", "predicate": "作者",
          "object": "沈从文"}]}
    out  {..., "prediction": {"spo_list": [{"subject": "长河", "predicate": "作者", "object": "沈从文",
          "subject_span": [1, 3], "object_span": [5, 8], "score": 2.7}]}}

Every token is, or is not, the first or the last of a subject; and, with a subject in mind, of an
object of every predicate (`nlpkit.layers.half_pointers`). The `score` of a triple is the smallest
of the four, log(p / (1 - p)). Data, schema, windows and scores are those of `gplinker`, which also
finds spans within spans of the same start.

A line may carry `predicates`, the relations it was annotated for: its silence on others is then no
"no". Of such a line the subjects are learnt only where it has an entity.

Source: https://kexue.fm/archives/7161, published 0.822 F1 on the dev set of DuIE 1.0 with BERT-base
(170k lines); /6671 without a pretrained encoder; Wei et al. 2020, arxiv.org/abs/1909.03227.
Differs from /7161: the objects of all subjects of a text are learnt in each step, whose mean is
what one drawn at random gives on average; no pairs of one subject's start and another's end; all
occurrences of a string are labelled; one threshold, tuned on the dev set.
Measured: F1 on the first 200 lines of dev, which also pick checkpoint and threshold, after
`nlpkit train casrel --data train.jsonl --dev dev.jsonl --encoder dgcnn --epochs 5 --seed 1` on the
first 1,000 lines, beside `gplinker`, which takes as long: DuIE (`complete_for=version`) 0.416 and
0.429, with `prior` 0.415; news_sro 0.395 and 0.432. Before untrained pointers were rare: 0.390,
0.378 with `prior`, and 0.352.
Legend: B texts, T tokens, M subjects of all texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from nlpkit import task
from nlpkit.evaluation.thresholds import threshold_for
from nlpkit.formats.triples import Prediction, Triple
from nlpkit.tasks._relations import Example, Relations, RelationSettings
from nlpkit.tasks.casrel.model import Batch, Model
from nlpkit.tasks.casrel.prior import Noting, Prior, digest
from nlpkit.text.tokenizer import Encoding, Span, Tokenizer

Objects = dict[Span, set[tuple[int, int, int]]]
"""Subject, first token and end -> (predicate, first and last token) of its objects."""


@dataclass(frozen=True)
class Settings(RelationSettings):
    """Settings, section `casrel`."""

    condition: Literal["norm", "gate"] = "norm"
    """How the tokens are read again with the subject in mind: by a conditional LayerNorm, or by a
    gate."""
    prior: bool = False
    """Whether the triples of the training data whose subject and object a text names are features
    of it. They are kept in the run."""


class Task(Relations, task.Task[Example, Batch, Prediction]):
    """See the module docstring."""

    Config = Settings

    @classmethod
    def prepare(
        cls, config: Any, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> Any:
        """Writes `schema.json` and, with `prior`, the triples of the data as `prior.json`."""
        if not config.prior:
            return super().prepare(config, records, folder)
        noting = Noting()
        config = super().prepare(config, noting(records), folder)
        noting.write(folder)
        return config

    def __init__(self, config: Any, tokenizer: Tokenizer, folder: Path | None):
        super().__init__(config, tokenizer, folder)
        self.prior: Prior | None = None
        if config.prior and folder is not None:
            self.prior = Prior(folder, self.predicate_ids)

    def read(self, record: dict[str, Any]) -> Example:
        """As `Relations.read`."""
        example = super().read(record)
        if self.prior is None:
            return example
        return replace(example, origin=digest(example.encoding.text))

    def labels(self, encoding: Encoding, triples: Sequence[Triple]) -> Objects:
        """The objects of every subject: all occurrences of every triple's strings."""
        found: Objects = {}
        for triple in triples:
            predicate = self.predicate_ids.get(triple.predicate)
            objects = encoding.find(triple.object)
            if predicate is None or not objects:
                continue
            for subject in encoding.find(triple.subject):
                cells = found.setdefault(subject, set())
                cells |= {(predicate, first, end - 1) for first, end in objects}
        return found

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """Pads the texts; with targets, the labels become cells with the text's row in front."""
        encodings = [example.encoding for example in examples]
        tokens = self.tokenizer.collate(encodings)
        annotated_BP = self.annotated(examples)
        decided_BT = tokens.content_BT.clone()
        prior_BTX = self._prior(examples, decided_BT.shape[1])
        if not targets:
            return Batch(encodings, tokens, annotated_BP, decided_BT, None, None, prior_BTX)
        subjects: list[tuple[int, ...]] = []
        objects: list[tuple[int, ...]] = []
        for row, example in enumerate(examples):
            labels = self.labels(example.encoding, example.gold.spo_list if example.gold else [])
            if not annotated_BP[row].all():
                decided_BT[row] = _inside(labels, len(decided_BT[row]))
            for (first, end), cells in sorted(labels.items()):
                for predicate, o_first, o_last in sorted(cells):
                    objects.append((len(subjects), predicate, 0, o_first))
                    objects.append((len(subjects), predicate, 1, o_last))
                subjects.append((row, first, end - 1))
        subjects_M3 = torch.tensor(subjects, dtype=torch.int64).reshape(-1, 3)
        objects_N4 = torch.tensor(objects, dtype=torch.int64).reshape(-1, 4)
        return Batch(
            encodings, tokens, annotated_BP, decided_BT, subjects_M3, objects_N4, prior_BTX
        )

    def _prior(self, examples: Sequence[Example], width: int) -> torch.Tensor | None:
        """prior_BTX of texts padded to `width`; None where the settings ask for none."""
        if self.prior is None:
            return None
        prior_BTX = torch.zeros((len(examples), width, self.prior.size), dtype=torch.bool)
        for row, example in enumerate(examples):
            prior_BTX[row, : len(example)] = self.prior.features(example.encoding, example.origin)
        return prior_BTX

    def build_model(self, encoder: nn.Module) -> Model:
        """Encoder and pointers with fresh weights for the pointers."""
        prior_size = 0 if self.prior is None else self.prior.size
        return Model(encoder, len(self.predicates), self.config.condition, prior_size)

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """The triples above the threshold; those of equal strings count once, with the best
        score."""
        threshold = threshold_for(self.config.threshold, loose)
        places = model.triples(batch, threshold, loose)
        return self.triples_of(places, batch.encodings)


def _inside(labels: Objects, width: int) -> torch.Tensor:
    """Whether each token lies in a subject or an object: bool (T,)."""
    inside_T = torch.zeros(width, dtype=torch.bool)
    for (first, end), cells in labels.items():
        inside_T[first:end] = True
        for _, o_first, o_last in cells:
            inside_T[o_first : o_last + 1] = True
    return inside_T
