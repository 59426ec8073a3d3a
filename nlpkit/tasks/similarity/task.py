"""Similarity: how alike two sentences are, and which of many are nearest to one.

    in   {"text_a": "怎么还款", "text_b": "如何还钱", "label": 1}     0, 1 or a grade; or, to look up:
         {"text": "怎么还款", "group": "还款"}
    out  {..., "prediction": {"score": 0.93, "label": 1}}      or, with --kb sentences.jsonl:
         {..., "prediction": {"group": "还款", "nearest": [{"text": "如何还钱", "score": 0.93, "line": 7,
          "group": "还款"}, ...]}}

The vector of a text is the mean of its encoder's states, of length 1; a score is the cosine of two.
Without a knowledge base a text gives its vector, and `output=vector` gives those of everything. The
loss follows from the data (`settings.LOSSES`), unless it is given; see `losses`. Pairs with labels
get a threshold, tuned for accuracy on dev; grades do not.

Long texts: pairs are compared window by window, and the cosines averaged by tokens; a text has the
nearest of all its windows, its vector is their mean.

Source: https://kexue.fm/archives/5743 (groups), /8847 (grades), /8471 (large steps in pieces: the
loss sees vectors alone, so that they have the gradient of the whole).
Legend: B examples, H size of a vector, K neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nlpkit import task
from nlpkit.errors import RecordError, SettingsError
from nlpkit.formats.finding import Finding
from nlpkit.formats.labels import label_ids, read_labels, write_labels
from nlpkit.tasks.similarity import metrics
from nlpkit.tasks.similarity.batch import Batch, collate
from nlpkit.tasks.similarity.examples import (
    SAID,
    Example,
    Found,
    Neighbour,
    Pair,
    Prediction,
    Vector,
    VectorPair,
    find_kind,
    parse_prediction,
    read_gold,
    read_sides,
    refuse_lonely_groups,
    refuse_other_kind,
    windows_of,
)
from nlpkit.tasks.similarity.index import index_of
from nlpkit.tasks.similarity.knowledge_base import (
    file_hash,
    keep_copy,
    open_sentences,
    read_sentences,
)
from nlpkit.tasks.similarity.merging import merged
from nlpkit.tasks.similarity.model import GroupModel, Model, PairModel
from nlpkit.tasks.similarity.settings import LOSSES, MONITORS, Settings
from nlpkit.text.tokenizer import TokenBatch, Tokenizer

DIGITS = 6
"""Of cosines and of the numbers of vectors."""


class Task(task.KnowledgeBase, task.Task[Example, Batch, Prediction]):
    """See the module docstring."""

    Config = Settings
    group = "label"
    parse = staticmethod(parse_prediction)

    @classmethod
    def prepare(
        cls, config: Settings, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> Settings:
        """Finds out what the data holds and chooses the loss; writes `labels.json`, the groups, and
        a copy of the knowledge base."""
        golds = []
        for where, record in records:
            try:
                golds.append((where, read_gold(record)))
            except RecordError as error:
                raise error.at(where) from None
        kind = find_kind(golds)
        known = LOSSES[kind]
        loss = config.loss or known[0]
        if loss not in known:
            raise SettingsError(
                f"similarity.loss: of {SAID[kind]}: expected {' or '.join(known)}, got {loss}"
            )
        write_labels(folder, refuse_lonely_groups(golds))
        config = replace(config, kind=kind, loss=loss)
        if not config.kb:
            return config
        keep_copy(read_sentences(config.kb), folder)
        kb = str(Path(config.kb).resolve())
        return replace(config, kb=kb, kb_sha256=file_hash(config.kb))

    def __init__(self, config: Settings, tokenizer: Tokenizer, folder: Path | None):
        self.config = config
        self.tokenizer = tokenizer
        self.folder = folder
        self.groups = read_labels(folder)
        self.group_ids = label_ids(self.groups)
        self.kb = open_sentences(config.kb, config.kb_sha256, folder) if folder else None

    @property
    def monitor(self) -> str:
        """That of the kind of data."""
        return MONITORS[self.config.kind or "labels"]

    @property
    def couples_examples(self) -> bool:
        """Whether the loss compares the examples of a step."""
        return self.config.loss in ("contrastive", "cosent")

    def read(self, record: dict[str, Any]) -> Example:
        """`text_a` and `text_b` with `label`, or `text` with `group`; gold may be missing.

        Raises RecordError for a field of another form, and for gold of another kind than that of
        the settings.
        """
        sides = read_sides(record)
        gold = read_gold(record)
        if gold is not None:
            refuse_other_kind(gold, self.config.kind)
        return Example(tuple(map(self.tokenizer.encode, sides)), gold)

    def augmenter(self, examples: Sequence[Example]) -> Callable[[Example, Any], Example] | None:
        """With `contrastive` on groups: another text of the group beside each."""
        if self.config.loss != "contrastive" or self.config.kind != "groups":
            return None
        members: dict[str | None, list[Example]] = {}
        for example in examples:
            if isinstance(example.gold, Found):
                members.setdefault(example.gold.group, []).append(example)

        def augment(example: Example, random: Any) -> Example:
            own = members[example.gold.group] if isinstance(example.gold, Found) else [example]
            others = [other for other in own if other is not example]
            drawn = others[random.integers(len(others))] if others else example
            return replace(example, partner=drawn.encodings[0])

        return augment

    def windows(self, example: Example) -> list[Example]:
        """Overlapping windows of long texts; see `windows_of`."""
        most = self.config.max_length
        return windows_of(example, lambda encoding: self.tokenizer.windows(encoding, most))

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """Pads the texts; with targets also what the loss has to know."""
        is_of_groups = not self.couples_examples
        return collate(examples, self.tokenizer, targets, self.group_ids if is_of_groups else None)

    def build_model(self, encoder: nn.Module) -> Model:
        """The encoder, and where groups are classes their weights."""
        if self.couples_examples:
            return PairModel(encoder, self.config)
        return GroupModel(encoder, self.config, max(1, len(self.groups)))

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """A prediction for each row. The index of a knowledge base is kept in the run's folder."""
        return self._decoded(model, batch, loose, self.folder)

    def evaluate(
        self, model: Model, batch: Batch, *, loose: bool = False, brief: bool = False
    ) -> list[Prediction]:
        """The same; the index is not kept, since the weights may change. Of a knowledge base
        without groups nothing can be scored: the texts are looked up among themselves."""
        return self._decoded(model, batch, loose, None, scored=True)

    def _decoded(
        self, model: Model, batch: Batch, loose: bool, folder: Path | None, scored: bool = False
    ) -> list[Prediction]:
        vectors_RH = model.vectors(batch.tokens)
        as_vectors = self.config.output == "vector"
        is_looked_up = self.kb is not None and (self.kb.has_groups or not scored)
        first_B = np.cumsum([0, *batch.texts])[:-1]
        alone = [int(row) for row, texts in zip(first_B, batch.texts, strict=True) if texts == 1]
        found: dict[int, Prediction] = {}
        if alone and is_looked_up and not as_vectors:
            found = dict(zip(alone, self._looked_up(model, vectors_RH[alone], folder), strict=True))
        rounded_RH = vectors_RH.cpu().numpy().astype(np.float64).round(DIGITS)
        predictions: list[Prediction] = []
        for row, texts in zip(first_B.tolist(), batch.texts, strict=True):
            if texts == 1:
                predictions.append(found.get(row) or Vector(rounded_RH[row].tolist()))
            elif as_vectors:
                predictions.append(VectorPair(*rounded_RH[row : row + 2].tolist()))
            else:
                cosine = float((vectors_RH[row] * vectors_RH[row + 1]).sum())
                predictions.append(self._pair(round(cosine, DIGITS), loose))
        return predictions

    def _pair(self, cosine: float | None, loose: bool) -> Pair:
        """The prediction of a pair; with a label where the data had labels."""
        if cosine is None or loose or self.config.kind != "labels":
            return Pair(cosine)
        return Pair(cosine, metrics.label_of(cosine, self.config.threshold))

    def _looked_up(
        self, model: Model, vectors_BH: torch.Tensor, folder: Path | None
    ) -> list[Prediction]:
        kb = self.kb
        assert kb is not None
        is_narrow = torch.is_autocast_enabled(vectors_BH.device.type)
        settings = self.config.pooling, self.config.max_length, is_narrow, vectors_BH.device.type
        projected = f" {self.config.project} numbers" if self.config.project else ""
        key = f"{kb.sha256} {settings}{projected}"
        index = index_of(model, kb.texts, self._tokens_of, key, folder)
        scores_BK, rows_BK = index.nearest(vectors_BH, self.config.nearest)
        predictions: list[Prediction] = []
        for scores, rows in zip(scores_BK.tolist(), rows_BK.tolist(), strict=True):
            nearest = []
            for score, row in zip(scores, rows, strict=True):
                rounded = round(score, DIGITS)
                nearest.append(Neighbour(kb.texts[row], rounded, row + 1, kb.groups[row]))
            predictions.append(Found(nearest[0].group, nearest))
        return predictions

    def _tokens_of(self, texts: list[str]) -> TokenBatch:
        """The tokens of sentences, each cut to its first window."""
        most = self.config.max_length
        encodings = [self.tokenizer.encode(text) for text in texts]
        return self.tokenizer.collate([self.tokenizer.windows(e, most)[0] for e in encodings])

    def merge(self, example: Example, predictions: Sequence[Prediction]) -> Prediction:
        """See the module docstring."""
        if len(predictions) == 1:
            return predictions[0]
        tokens = [len(window) for window in self.windows(example)][: len(predictions)]
        found = merged(predictions, tokens, self.config.nearest, DIGITS)
        is_loose = isinstance(predictions[0], Pair) and predictions[0].label is None
        return self._pair(found.score, is_loose) if isinstance(found, Pair) else found

    @property
    def tunes(self) -> bool:
        """Whether labels are to be told by a threshold that was left open."""
        return self.config.kind == "labels" and self.config.threshold is None

    def tune(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> Settings:
        """The threshold with the best accuracy, if the data has labels."""
        if self.config.kind != "labels":
            return self.config
        return replace(self.config, threshold=metrics.best_threshold(pairs))

    def cut(self, prediction: Prediction, settings: Settings) -> Prediction:
        """A pair with its label under the threshold."""
        if settings.kind != "labels" or not isinstance(prediction, Pair):
            return prediction
        label = metrics.label_of(metrics.cosine_of(prediction), settings.threshold)
        return replace(prediction, label=label)

    def facts(self, prediction: Prediction) -> dict[Any, str]:
        """The label of a pair, or the group of a text; grades and vectors state nothing that is
        right or wrong."""
        if isinstance(prediction, Found) and prediction.group is not None:
            return {prediction.group: prediction.group}
        if isinstance(prediction, Pair) and self.config.kind != "grades":
            label = prediction.label
            return {str(int(label)): str(int(label))} if label in (0, 1) else {}
        return {}

    def score(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
        """See `metrics`."""
        return metrics.score(pairs, self.config.kind, self.config.threshold)

    def report(self, example: Example) -> Iterator[Finding]:
        """Empty texts, and pairs that are one text and yet not alike."""
        texts = [encoding.text for encoding in example.encodings]
        if not all(text.strip() for text in texts):
            yield Finding("empty text", "it says nothing")
        gold = example.gold
        is_same = len(texts) == 2 and texts[0] == texts[1]
        if is_same and isinstance(gold, Pair) and gold.label == 0:
            yield Finding("same text", "both sides are one text, and the label is 0")
