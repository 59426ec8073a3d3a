r"""Entity linking: which names in a text mean which entities of a knowledge base, and which mean
none of them (NIL).

    in   {"text": "雾灯是谁写的？", "mentions": [{"start": 0, "end": 2, "entity": "7"}]}       entity null for NIL
         or as in CCKS2019 and 2020: {"text": ..., "mention_data": [{"mention": "雾灯", "offset": "0", "kb_id": "7"}]}
    out  {..., "prediction": {"mentions": [{"start": 0, "end": 2, "text": "雾灯", "entity": "7", "name": "雾灯",
          "score": 6.1, "choices": 2, "candidates": [{"entity": "7", "name": "雾灯", "score": 3.2}, ...]}]}}

The knowledge base is `--kb FILE` (see `kb_file`). The run keeps it in a form of its own, and
refuses a file that changed since.

1. Dictionary: all substrings of the text that are aliases, in one form for all ways of writing
   them.
2. Mentions: s(i, j) = pointer(i, j) + f(match), f of link statistics, words of jieba, length and
   number of namesakes. The encoder only chooses among matches (its veto), unless NIL mentions that
   are no alias were there to learn from.
3. Entities: each candidate's description against the mention in its text (`matcher`). The loss is
   that of choosing among the candidates and NIL, whose fit is 0; namesakes are few, so random
   entities are candidates too, and at times the right one is hidden. Or, with `generative`, to
   compare: the entity is written from the mention in its text, NIL as nothing at all (see
   `generative`). Nothing is hidden then, since what is read does not tell who the candidates are.

Descriptions are encoded when their entity is first a candidate and kept: a text takes one or two of
them. Encoding all of a knowledge base ahead would take a million of them half an hour and a
gigabyte, for vectors instead of tokens.

Source: https://kexue.fm/archives/6919; published: 0.78 F1 on the test set of CCKS2019 without
pretraining.
Differs from it: NIL, which it drops; a pointer in place of two sigmoids; thresholds tuned on dev;
see also `matcher`.
Legend: B batch, T tokens, H hidden, M mentions, N matches or pairs, S tokens of a description, D
size.
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
from nlpkit.encoders.base import encode
from nlpkit.evaluation.thresholds import LOOSE_THRESHOLD, above, threshold_for
from nlpkit.formats.finding import Finding
from nlpkit.formats.text import read_text
from nlpkit.layers.span_decoding import spans_above
from nlpkit.tasks.entity_linking.batch import Asked, Batch, Collator, Example
from nlpkit.tasks.entity_linking.candidates import (
    MARKS,
    Lexicon,
    open_lexicon,
    prepare_lexicon,
    refuse_change,
)
from nlpkit.tasks.entity_linking.generative import Writing
from nlpkit.tasks.entity_linking.link_statistics import part_of
from nlpkit.tasks.entity_linking.mentions import (
    NEVER,
    Candidate,
    Mention,
    Prediction,
    apart,
    read_mentions,
    score_mentions,
    tune_mentions,
)
from nlpkit.tasks.entity_linking.model import MentionModel, Model, WritingModel
from nlpkit.tasks.entity_linking.settings import Settings
from nlpkit.text.tokenizer import Tokenizer, keep_whole

LISTED = 5  # candidates of a mention in a prediction


class Task(task.KnowledgeBase, task.Task[Example, Batch, Prediction]):
    """See the module docstring."""

    Config = Settings
    monitor = "f1"
    group = "kind"

    @classmethod
    def needs_head(cls, config: Settings) -> bool:
        """To write entities."""
        return config.generative

    needs_extend = needs_head

    @classmethod
    def prepare(
        cls, config: Settings, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> Settings:
        """Writes `kb` and `link_statistics`, and notes which knowledge base it is."""
        kb = cls.required_kb(config, "entity_linking", "entities.jsonl")
        source, unknown = prepare_lexicon(kb, list(records), folder, config.max_description - 2)
        unknown = unknown if config.unknown is None else config.unknown
        return replace(config, kb=str(Path(kb).resolve()), kb_sha256=source, unknown=unknown)

    def __init__(self, config: Settings, tokenizer: Tokenizer, folder: Path | None):
        self.config = config
        self.tokenizer = tokenizer
        self.lexicon: Lexicon | None = open_lexicon(folder, config.choices) if folder else None
        if self.lexicon:
            refuse_change(config.kb, self.lexicon.kb.source)
            writing = Writing(self.lexicon.kb, tokenizer) if config.generative else None
            self._collator = Collator(
                self.lexicon, tokenizer, config.max_description, bool(config.unknown), writing
            )

    def read(self, record: dict[str, Any]) -> Example:
        """`text` and, where there is gold, `mentions` or `mention_data`."""
        text = read_text(record)
        mentions = read_mentions(record, text)
        encoding = self.tokenizer.encode(text)
        if self.lexicon is None:
            gold = None if mentions is None else Prediction(mentions)
            return Example(encoding, [], np.zeros((0, MARKS - 2), np.float32), gold)
        matches = [
            match for match in self.lexicon.kb.matches(text) if encoding.token_span(match[:2])
        ]
        gold = (
            None
            if mentions is None
            else Prediction([self._counted(mention) for mention in mentions])
        )
        return Example(encoding, matches, self.lexicon.shapes(text, matches), gold)

    def _counted(self, mention: Mention) -> Mention:
        """A gold mention with the number of its namesakes."""
        kb = self._known.kb
        alias = kb.alias(mention.text)
        return replace(mention, choices=0 if alias is None else len(kb.entities_of(alias)))

    @property
    def _known(self) -> Lexicon:
        assert self.lexicon is not None  # only reading and scoring go without a run's folder
        return self.lexicon

    def parse(self, value: dict[str, Any]) -> Prediction:
        """The mentions of `mentions`; without the text their spans cannot be checked."""
        return Prediction(read_mentions({"mentions": [], **value}, None) or [])

    def augmenter(self, examples: Sequence[Example]) -> Callable[[Example, Any], Example] | None:
        """Takes a text's own part out of the link statistics; to match, draws entities, and at times hides
        the right ones."""

        def augment(example: Example, random: Any) -> Example:
            example = replace(example, without=part_of(example.encoding.text))
            if self.config.generative:
                return example
            golds = len(example.gold.mentions) if example.gold else 0
            drawn = random.integers(len(self._known.kb), size=self.config.negatives * golds)
            return replace(
                example, negatives=tuple(drawn.tolist()), hidden=random.random() < self.config.hide
            )

        return augment

    def windows(self, example: Example) -> list[Example]:
        """Overlapping windows; a match is in every window that holds it."""
        pieces = self.tokenizer.windows(example.encoding, self.config.max_length)
        if len(pieces) == 1:
            return [example]
        windows = []
        for piece in pieces:
            kept = [row for row, match in enumerate(example.matches) if piece.token_span(match[:2])]
            matches = [example.matches[row] for row in kept]
            windows.append(
                replace(example, encoding=piece, matches=matches, shapes=example.shapes[kept])
            )
        return windows

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """Pads the texts; with targets, also what gold mentions may mean, to be matched or to be
        written."""
        return self._collator(examples, targets)

    def build_model(self, encoder: nn.Module) -> MentionModel:
        """Encoder, pointer and, unless entities are generated, matcher, the last two with fresh
        weights."""
        if self.config.generative:
            return WritingModel(encoder, self.config)
        model = Model(encoder, self.config)
        model.unk_id = self.tokenizer.unk_id
        return model

    def decode(
        self, model: Model | WritingModel, batch: Batch, *, loose: bool = False
    ) -> list[Prediction]:
        """The best mentions that do not overlap, and of each the candidate that fits best."""
        hidden_BTH = encode(model.encoder, batch.tokens)
        threshold = threshold_for(self.config.threshold, loose)
        spans = spans_above(model.scores(hidden_BTH, batch).dense()[:, 0], threshold, loose)
        found: list[list[Mention]] = [[] for _ in batch.examples]
        for row, first, last, score in zip(*(part.tolist() for part in spans), strict=True):
            encoding = batch.examples[row].encoding
            start, end = encoding.char_span((first, last + 1))
            found[row].append(
                Mention(
                    start, end, encoding.text[start:end], None, score=round(score, 4), choices=0
                )
            )
        nil_threshold = NEVER if loose else self.config.nil_threshold or 0.0
        chosen = [apart(mentions) for mentions in found]
        return [
            Prediction(some)
            for some in self._linked(model, batch, hidden_BTH, chosen, nil_threshold)
        ]

    def _linked(
        self,
        model: Model | WritingModel,
        batch: Batch,
        hidden_BTH: torch.Tensor,
        found: list[list[Mention]],
        nil_threshold: float,
    ) -> list[list[Mention]]:
        """The mentions with their candidates, and the entity decided."""
        places, asked, kb = [], [], self._known.kb
        for row, mentions in enumerate(found):
            for column, mention in enumerate(mentions):
                place = batch.examples[row].place(mention)
                if place:
                    places.append((row, column, len(kb.entities_of(place[0]))))
                    asked.append(
                        Asked(row, place[1], *self._known.candidates(place[0], mention.text, None))
                    )
        if not asked:
            return found
        fits_MC = model.fits(hidden_BTH, batch, asked, self._collator)
        for (row, column, choices), some, fits in zip(places, asked, fits_MC, strict=True):
            ranked = sorted(
                zip(some.rows.tolist(), fits[1:], strict=False), key=lambda pair: -pair[1]
            )[:LISTED]
            candidates = [
                Candidate(kb.id(entity), kb.name(entity), round(fit, 4)) for entity, fit in ranked
            ]
            mention = replace(found[row][column], choices=choices, candidates=candidates)
            found[row][column] = mention.decided(nil_threshold)
        return found

    def merge(self, example: Example, predictions: Sequence[Prediction]) -> Prediction:
        """Of what the windows found whole, the best that does not overlap."""
        windows = self.tokenizer.windows(example.encoding, self.config.max_length)
        found = keep_whole(windows, [p.mentions for p in predictions], lambda m: [(m.start, m.end)])
        return Prediction(apart(found))

    @property
    def tunes(self) -> bool:
        """Whether the thresholds were left open."""
        return self.config.threshold is None

    def tune(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> Settings:
        """The two thresholds with the best F1 on (gold, loose prediction) pairs."""
        threshold, nil_threshold = tune_mentions(list(pairs))
        threshold = max(LOOSE_THRESHOLD, threshold)  # nothing is known of what lies below
        return replace(self.config, threshold=threshold, nil_threshold=nil_threshold)

    def cut(self, prediction: Prediction, settings: Settings) -> Prediction:
        """The mentions above the threshold, each decided between NIL and its best entity."""
        kept = above(settings.threshold, prediction.mentions)
        return Prediction([mention.decided(settings.nil_threshold or 0.0) for mention in kept])

    def facts(self, prediction: Prediction) -> dict[Any, str]:
        """(start, end, entity or NIL) under its kind: NIL, ambiguous (of several) or unique."""
        return {mention.key: mention.kind for mention in prediction.mentions}

    def score(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
        """Metrics of (span, entity), of spans, of ambiguous mentions and of NIL."""
        return score_mentions(pairs)

    def report(self, example: Example) -> Iterator[Finding]:
        """Gold that is not of whole tokens, no alias, no entity of its name, or in no window."""
        windows = [window.encoding for window in self.windows(example)]
        for mention in example.gold.mentions if example.gold and self.lexicon else ():
            name, span = f'"{mention.text}" at {mention.start}', (mention.start, mention.end)
            alias = example.aliases.get(span)
            if not example.encoding.token_span(span):
                yield Finding("not of whole tokens", name, mention.key)
            elif alias is None and not (mention.entity is None and self.config.unknown):
                yield Finding("unknown alias", f"{name}: no entity goes by it", mention.key)
            elif (
                alias is not None
                and mention.entity
                and self._known.kb.row(alias, mention.entity) is None
            ):
                yield Finding(
                    "unknown entity", f'{name}: "{mention.entity}" does not go by it', mention.key
                )
            elif not any(window.token_span(span) for window in windows):
                yield Finding("in no window", name, mention.key)
