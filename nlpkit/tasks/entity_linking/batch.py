"""Texts with their aliases, mentions with what they may mean, and both as the tensors of a batch.

Legend: B texts, T tokens, N matches or pairs, M mentions, D distinct entities, C candidates and
NIL, F features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from nlpkit.layers.prefix_lm import Pair, PrefixBatch, collate_pairs
from nlpkit.layers.span_decoding import with_rows
from nlpkit.tasks.entity_linking.candidates import PRIORS, Lexicon
from nlpkit.tasks.entity_linking.generative import Key, Writing
from nlpkit.tasks.entity_linking.kb import Match
from nlpkit.tasks.entity_linking.mentions import Mention, Prediction
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import LENGTH_STEP, Encoding, Span, TokenBatch, Tokenizer

Piece = tuple[list[int], TokenBatch]  # rows of entities, and their descriptions
TOGETHER = 256  # descriptions of a piece at most


@dataclass(frozen=True, eq=False)
class Example:
    """A text and the aliases in it. What `augmenter` draws is not there at prediction."""

    encoding: Encoding
    matches: list[Match]
    """Those made of whole tokens of the encoding, with their `shapes`."""
    shapes: np.ndarray
    gold: Prediction | None
    without: int | None = None
    """The part of the link statistics that the text itself was counted in."""
    negatives: tuple[int, ...] = ()
    hidden: bool = False

    def __len__(self) -> int:
        return len(self.encoding)

    @cached_property
    def aliases(self) -> dict[Span, int]:
        """The alias at each span that is one."""
        return {(match.start, match.end): match.alias for match in self.matches}

    def place(self, mention: Mention) -> tuple[int, Span] | None:
        """(alias, tokens) of a mention that is an alias of this window, None of another."""
        span = mention.start, mention.end
        alias, tokens = self.aliases.get(span), self.encoding.token_span(span)
        return None if alias is None or tokens is None else (alias, tokens)


@dataclass(frozen=True)
class Asked:
    """A mention whose entity is asked for: its text's row in the batch, its tokens, candidates and
    their priors."""

    text: int
    tokens: Span
    rows: np.ndarray
    priors: np.ndarray
    target: int = -1
    """The place of the right one among the candidates, -1 for NIL."""


@dataclass(frozen=True)
class Links(TensorFields):
    """Mentions of a batch and their candidates, as pairs one after another; N pairs of M mentions
    and D entities."""

    text_M: torch.Tensor
    span_M2: torch.Tensor
    mention_N: torch.Tensor
    entity_N: torch.Tensor
    """The place of the pair's entity in `rows`."""
    prior_NF: torch.Tensor
    target_M: torch.Tensor
    """The place of the right candidate among those of its mention, from 1; 0 for NIL."""
    rows: list[int]
    """The entities, each once."""

    @classmethod
    def of(cls, asked: Sequence[Asked]) -> Links:
        """The tensors of some mentions."""
        rows_N = np.concatenate([np.zeros(0, np.int64), *(some.rows for some in asked)])
        rows, entity_N = np.unique(rows_N, return_inverse=True)
        counts = [len(some.rows) for some in asked]
        priors = np.concatenate(
            [np.zeros((0, PRIORS), np.float32), *(some.priors for some in asked)]
        )
        return cls(
            text_M=torch.tensor([some.text for some in asked], dtype=torch.int64),
            span_M2=torch.tensor([some.tokens for some in asked], dtype=torch.int64).reshape(-1, 2),
            mention_N=torch.from_numpy(np.repeat(np.arange(len(asked)), counts)),
            entity_N=torch.from_numpy(entity_N),
            prior_NF=torch.from_numpy(priors),
            target_M=torch.tensor([some.target + 1 for some in asked], dtype=torch.int64),
            rows=rows.astype(int).tolist(),
        )

    def by_mention(self, fit_N: torch.Tensor) -> torch.Tensor:
        """The fits in rows of a mention each, the fit 0 of NIL in front, -inf beyond the last: (M,
        1 + most)."""
        count_M = torch.bincount(self.mention_N, minlength=len(self.text_M))
        column_N = (
            torch.arange(len(fit_N), device=fit_N.device)
            - (count_M.cumsum(0) - count_M)[self.mention_N]
        )
        table_MC = fit_N.new_full(
            (len(count_M), 1 + int(count_M.max()) if len(count_M) else 1), -torch.inf
        )
        table_MC[:, 0] = 0.0
        return table_MC.index_put((self.mention_N, column_N + 1), fit_N)


@dataclass(frozen=True)
class Batch(TensorFields):
    """Tokens, the matches as cells (text, 0, first token, last token), and with targets what is to
    be found."""

    examples: list[Any]
    tokens: TokenBatch
    match_N4: torch.Tensor
    feature_NF: torch.Tensor
    gold_N4: torch.Tensor | None
    links: Links | None
    descriptions: tuple[Piece, ...]
    """Of the entities of `links`."""
    pairs: PrefixBatch | None = None
    """What is to be written of the mentions of `links`."""


@dataclass(frozen=True, eq=False)
class Collator:
    """Makes batches.

    Args:
        unknown: whether a span that is no alias may be a mention.
        writing: how entities are written, where they are generated; None where they are matched.
    """

    lexicon: Lexicon
    tokenizer: Tokenizer
    max_description: int
    unknown: bool
    writing: Writing | None = None

    def __call__(self, examples: Sequence[Example], targets: bool) -> Batch:
        """Pads the texts; with targets, also what gold mentions may mean, to be matched or to be
        written."""
        gold_N4 = links = pairs = None
        if targets:
            gold_N4 = with_rows([_cells(e.encoding, self._seen(e)) for e in examples])
            asked = [
                some for row, example in enumerate(examples) for some in self._asked(row, example)
            ]
            links = Links.of(asked)
            pairs = self._pairs(examples, asked)
        features = []
        matched = []
        for example in examples:
            aliases = np.array([match.alias for match in example.matches], np.int64)
            features.append(self.lexicon.features(aliases, example.shapes, example.without))
            matched.append(_cells(example.encoding, [match[:2] for match in example.matches]))
        return Batch(
            examples=list(examples),
            tokens=self.tokenizer.collate([example.encoding for example in examples]),
            match_N4=with_rows(matched),
            feature_NF=torch.from_numpy(np.concatenate(features)),
            gold_N4=gold_N4,
            links=links,
            descriptions=tuple(self.descriptions(links.rows)) if links and not self.writing else (),
            pairs=pairs,
        )

    def written(self, example: Example, some: Asked) -> tuple[list[int], list[Key]]:
        """The source of a mention, and the keys of NIL and of its candidates."""
        assert self.writing is not None
        return self.writing.source(example.encoding, some.tokens), self.writing.keys(
            some.rows.tolist()
        )

    def _pairs(self, examples: Sequence[Example], asked: Sequence[Asked]) -> PrefixBatch | None:
        if not self.writing or not asked:
            return None
        written = [(self.written(examples[some.text], some), some.target) for some in asked]
        return collate_pairs(
            [Pair(source, keys[target + 1]) for (source, keys), target in written],
            self.tokenizer,
            self.tokenizer.cls_id,
        )

    def _seen(self, example: Example) -> list[Span]:
        """The gold spans that the model may score."""
        spans = (
            {(mention.start, mention.end) for mention in example.gold.mentions}
            if example.gold
            else set()
        )
        return sorted(spans if self.unknown else spans & example.aliases.keys())

    def _asked(self, row: int, example: Example) -> Iterator[Asked]:
        """The gold mentions that are aliases, with what they may mean."""
        mentions = example.gold.mentions if example.gold else []
        for number, mention in enumerate(mentions):
            place = example.place(mention)
            if place:
                alias, tokens = place
                others = np.array(example.negatives[number :: len(mentions)], np.int64)
                meant = alias, mention.text, mention.entity
                found = self.lexicon.training_candidates(
                    *meant, example.without, others, example.hidden
                )
                if found:
                    yield Asked(row, tokens, *found)

    def descriptions(self, rows: Sequence[int]) -> list[Piece]:
        """Descriptions of entities as the encoder reads them, in pieces of one padded length: most
        are short, and how far one is padded does not depend on the others."""
        by_length: dict[int, list[tuple[int, Encoding]]] = {}
        for row in rows:
            whole = self.tokenizer.encode(self.lexicon.kb.description(row))
            encoding = whole.slice(1, min(len(whole), self.max_description) - 1)
            length = -(-len(encoding) // LENGTH_STEP)
            by_length.setdefault(length, []).append((row, encoding))
        pieces = []
        for _, some in sorted(by_length.items()):
            for first in range(0, len(some), TOGETHER):
                chunk = some[first : first + TOGETHER]
                tokens = self.tokenizer.collate([encoding for _, encoding in chunk])
                pieces.append(([row for row, _ in chunk], tokens))
        return pieces


def _cells(encoding: Encoding, spans: Iterable[Span]) -> np.ndarray:
    """(0, first token, last token) of the spans that lie in the encoding: (N, 3)."""
    tokens = [span for span in map(encoding.token_span, spans) if span]
    return np.array([(0, first, end - 1) for first, end in tokens], dtype=np.int64).reshape(-1, 3)
