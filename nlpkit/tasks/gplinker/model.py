"""The model of GPLinker: an encoder, three pointers, and their scores put together to triples.

    entity pointer   heads 0 and 1: spans that are subjects, spans that are objects
    head pointer     a head for each predicate: (first token of a subject, first token of an object)
    tail pointer     a head for each predicate: (last token of a subject, last token of an object)

Source: https://kexue.fm/archives/8888.
Legend: B batch, T tokens, E heads of the entity pointer, P predicates, N pairs of a subject and an
object, K triples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from nlpkit.encoders.base import encode
from nlpkit.layers.global_pointer import GlobalPointer, PairScores, multilabel_loss, overlap_loss
from nlpkit.layers.span_decoding import pairs_in_rows, spans_above
from nlpkit.tasks._relations import Found
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import Encoding, TokenBatch

SCORES_AT_ONCE = 1 << 22  # scores of subject-object pairs held in memory while decoding


@dataclass(frozen=True)
class Batch(TensorFields):
    """Texts as tokens and, where gold is known, what is to be found in them."""

    encodings: list[Encoding]
    tokens: TokenBatch
    cells: tuple[torch.Tensor, ...] | None
    """(text, head, i, j) of the gold cells of the entity, head and tail pointers: (N, 4) each."""
    annotated_BP: torch.Tensor
    """Whether each text was annotated for each predicate."""


class Model(nn.Module):
    """Encoder and three pointers."""

    loss_names = ("entity", "head", "tail")

    def __init__(self, encoder: Any, predicates: int, config: Any):
        """`config` is the `Settings` of the task."""
        super().__init__()
        self.encoder = encoder
        self.predicates = predicates
        pointer = partial(
            GlobalPointer,
            encoder.hidden_size,
            efficient=config.head == "efficient",
            head_size=config.head_size,
            initial_score=config.initial_score,
        )
        self.entity = pointer(heads=2)
        link = partial(pointer, heads=predicates, rotary=config.rotary_links, ordered=False)
        self.head = link()
        self.tail = link()

    def scores(self, tokens: TokenBatch) -> tuple[PairScores, PairScores, PairScores]:
        """Scores of the entity, head and tail pointers."""
        hidden_BTH = encode(self.encoder, tokens)
        content_BT = tokens.content_BT
        return (
            self.entity(hidden_BTH, content_BT),
            self.head(hidden_BTH, content_BT),
            self.tail(hidden_BTH, content_BT),
        )

    def outputs(self, batch: Batch) -> tuple[PairScores, PairScores, PairScores]:
        """`scores` of a batch."""
        return self.scores(batch.tokens)

    def log_probs(self, outputs: tuple[PairScores, ...]) -> torch.Tensor:
        """Whether each pair of tokens belongs to each head of the three pointers: (B, N, 2), N is
        T T times the heads."""
        return torch.cat([scores.log_probs() for scores in outputs], 1)

    def forward(self, batch: Batch) -> torch.Tensor:
        """The loss of each text, summed over heads: (B,). What a text was not annotated for costs
        nothing."""
        entity_B, head_BP, tail_BP = self._losses(batch)
        return entity_B + ((head_BP + tail_BP) * batch.annotated_BP).sum(1)

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The loss of each text apart for the three pointers, `loss_names`: (B,) each."""
        entity_B, head_BP, tail_BP = self._losses(batch)
        head_B = (head_BP * batch.annotated_BP).sum(1)
        tail_B = (tail_BP * batch.annotated_BP).sum(1)
        return {"entity": entity_B, "head": head_B, "tail": tail_B}

    def _losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """entity_B, and head_BP and tail_BP of each predicate, annotated or not."""
        assert batch.cells is not None
        entity, head, tail = self.outputs(batch)
        entity_N4, head_N4, tail_N4 = batch.cells
        present_BE, absent_BE = multilabel_loss(entity, entity_N4)
        complete_B1 = batch.annotated_BP.all(1, keepdim=True)
        if not complete_B1.all():
            absent_BE = torch.where(complete_B1, absent_BE, overlap_loss(entity, entity_N4))
        present_BP, absent_BP = multilabel_loss(head, head_N4)
        head_BP = present_BP + absent_BP
        present_BP, absent_BP = multilabel_loss(tail, tail_N4)
        return (present_BE + absent_BE).sum(1), head_BP, present_BP + absent_BP

    def triples(self, tokens: TokenBatch, threshold: float, loose: bool) -> Iterator[Found]:
        """The triples all four of whose scores lie above the threshold, text by text.

        Spans are found first, then their pairs looked up by index: P x T x T scores are never held.
        `loose` keeps more spans, see `spans_above`.
        """
        entity, head, tail = self.scores(tokens)
        entity_B2TT = entity.dense()
        subjects = spans_above(entity_B2TT[:, 0], threshold, loose)
        objects = spans_above(entity_B2TT[:, 1], threshold, loose)
        most = max(1, SCORES_AT_ONCE // self.predicates)
        for s_N, o_N in pairs_in_rows(subjects[0], objects[0], most):
            row_N, s_first_N, s_last_N, s_score_N = (part[s_N] for part in subjects)
            _, o_first_N, o_last_N, o_score_N = (part[o_N] for part in objects)
            head_NP = head.cells(row_N, s_first_N, o_first_N)
            tail_NP = tail.cells(row_N, s_last_N, o_last_N)
            spans_N1 = torch.minimum(s_score_N, o_score_N)[:, None]
            score_NP = torch.minimum(torch.minimum(head_NP, tail_NP), spans_N1)
            pair_K, predicate_K = (score_NP > threshold).nonzero(as_tuple=True)
            columns = (row_N, s_first_N, s_last_N, o_first_N, o_last_N)
            place_K6 = torch.stack([*(part[pair_K] for part in columns), predicate_K], 1)
            score_K = score_NP[pair_K, predicate_K]
            for place, score in zip(place_K6.tolist(), score_K.tolist(), strict=True):
                row, s_first, s_last, o_first, o_last, predicate = place
                yield Found(row, (s_first, s_last), (o_first, o_last), predicate, score)
