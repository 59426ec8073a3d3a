"""The model of CasRel: pointers to subjects, and, for a subject, pointers to objects by predicate.

    P(s, p, o | text) = P(s | text) P(p, o | s, text)

The tokens are read again with the subject in mind, its first and last vector c = [h_first; h_last],
in one of two ways:

    norm    h' = CLN(h, c), a conditional LayerNorm
    gate    [a; g] = W [h; c] + b,    h' = h + sigmoid(a) * (g - h)

Source: https://kexue.fm/archives/7161 (norm), /6671 (the factors, the gate of its convolutions).
Differs from /7161: the norm comes on top of the encoder, not in place of its last one.
Legend: B texts, T tokens, P predicates, M subjects of all texts, H hidden, 2: first and last, N
gold cells, K triples, X prior features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nlpkit.encoders.base import encode
from nlpkit.layers.conditional_norm import ConditionalNorm, Conditions
from nlpkit.layers.half_pointers import logit_of, pointer_losses, scores, spans_from
from nlpkit.layers.span_decoding import LOOSE_SPANS
from nlpkit.tasks._relations import Found
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import Encoding, TokenBatch

SUBJECT_POWER = 2
OBJECT_POWER = 4
AT_FIRST = 0.01
"""What p of an untrained model is: as rare as first and last tokens are."""
SCORES_AT_ONCE = 1 << 22  # of objects, held in memory while decoding
LOOSE_OBJECTS = 64
"""Of a subject, that loose decoding keeps at most."""


@dataclass(frozen=True)
class Batch(TensorFields):
    """Texts as tokens and, where gold is known, what is to be found in them."""

    encodings: list[Encoding]
    tokens: TokenBatch
    annotated_BP: torch.Tensor
    """Whether each text was annotated for each predicate."""
    decided_BT: torch.Tensor
    """Tokens of which gold says whether a subject starts or ends there."""
    subjects_M3: torch.Tensor | None
    """(text, first token, last token) of all gold subjects."""
    objects_N4: torch.Tensor | None
    """(subject, predicate, 0 for first and 1 for last, token)."""
    prior_BTX: torch.Tensor | None = None
    """Features of `nlpkit.tasks.casrel.prior`, where the settings ask for them."""


class Model(nn.Module):
    """Encoder and pointers."""

    def __init__(self, encoder: Any, predicates: int, condition: str, prior_size: int = 0):
        """`condition` is that of the settings, `prior_size` the number of prior features."""
        super().__init__()
        self.encoder = encoder
        self.predicates = predicates
        size = encoder.hidden_size
        self.subject = nn.Linear(size, 2)
        self.object = nn.Linear(size, 2 * predicates)
        for layer, power in ((self.subject, SUBJECT_POWER), (self.object, OBJECT_POWER)):
            nn.init.constant_(layer.bias, logit_of(AT_FIRST, power))
        self.norm = self.gate = None
        if condition == "norm":
            self.conditions = Conditions()
            self.norm = ConditionalNorm(nn.LayerNorm(size), 2 * size, self.conditions)
        else:
            self.gate = nn.Linear(3 * size, 2 * size)
        self.prior = None
        if prior_size:
            self.prior = nn.Linear(prior_size, size, bias=False)
            nn.init.zeros_(self.prior.weight)

    def encoded(self, batch: Batch) -> torch.Tensor:
        """hidden_BTH, the vectors of what is known beforehand added."""
        hidden_BTH = encode(self.encoder, batch.tokens)
        if self.prior is None:
            return hidden_BTH
        assert batch.prior_BTX is not None
        return hidden_BTH + self.prior(batch.prior_BTX.to(hidden_BTH.dtype))

    def objects(self, hidden_BTH: torch.Tensor, subjects_M3: torch.Tensor) -> torch.Tensor:
        """logits_MPT2 of first and last tokens of the objects of some subjects."""
        row_M, first_M, last_M = subjects_M3.unbind(1)
        hidden_MTH = hidden_BTH[row_M]
        ends = hidden_BTH[row_M, first_M], hidden_BTH[row_M, last_M]
        subject_MC = torch.cat(ends, -1)
        logits_MTX = self.object(self._with_subject(hidden_MTH, subject_MC))
        return logits_MTX.unflatten(2, (self.predicates, 2)).transpose(1, 2)

    def _with_subject(self, hidden_MTH: torch.Tensor, subject_MC: torch.Tensor) -> torch.Tensor:
        if self.norm is not None:
            with self.conditions.given(subject_MC):
                return self.norm(hidden_MTH)
        assert self.gate is not None
        subject_MTC = subject_MC[:, None].expand(-1, hidden_MTH.shape[1], -1)
        choice_MTH, seen_MTH = self.gate(torch.cat([hidden_MTH, subject_MTC], -1)).chunk(2, -1)
        return hidden_MTH + choice_MTH.sigmoid() * (seen_MTH - hidden_MTH)

    def forward(self, batch: Batch) -> torch.Tensor:
        """The loss of each text: (B,). That of its subjects, and the mean of those of the objects
        of each; of a text, the mean over its tokens. What it was not annotated for costs
        nothing."""
        assert batch.subjects_M3 is not None
        assert batch.objects_N4 is not None
        hidden_BTH = self.encoded(batch)
        content_BT = batch.tokens.content_BT
        length_B = content_BT.sum(1).clamp_min(1)
        row_M, first_M, last_M = batch.subjects_M3.unbind(1)

        wanted_BT2 = torch.zeros((*content_BT.shape, 2), dtype=torch.bool, device=row_M.device)
        wanted_BT2[row_M, first_M, 0] = True
        wanted_BT2[row_M, last_M, 1] = True
        loss_BT = pointer_losses(self.subject(hidden_BTH), wanted_BT2, SUBJECT_POWER).mean(2)
        loss_B = (loss_BT * batch.decided_BT).sum(1) / length_B

        logits_MPT2 = self.objects(hidden_BTH, batch.subjects_M3)
        subject_N, predicate_N, side_N, token_N = batch.objects_N4.unbind(1)
        wanted_MPT2 = torch.zeros_like(logits_MPT2, dtype=torch.bool)
        wanted_MPT2[subject_N, predicate_N, token_N, side_N] = True
        loss_MPT = pointer_losses(logits_MPT2, wanted_MPT2, OBJECT_POWER).mean(3)
        loss_MP = (loss_MPT * content_BT[row_M][:, None]).sum(2)
        loss_M = (loss_MP * batch.annotated_BP[row_M]).sum(1) / length_B[row_M]
        count_B = row_M.bincount(minlength=len(loss_B)).clamp_min(1)
        return loss_B.index_add(0, row_M, loss_M / count_B[row_M])

    def triples(self, batch: Batch, threshold: float, loose: bool) -> Iterator[Found]:
        """The triples whose subject and object score above the threshold, text by text.

        The score of a triple is the smallest of its four. `loose` keeps only the LOOSE_SPANS best
        subjects of a text and the LOOSE_OBJECTS best objects of each.
        """
        hidden_BTH = self.encoded(batch)
        content_BT = batch.tokens.content_BT
        start_BT, end_BT = scores(self.subject(hidden_BTH), SUBJECT_POWER).unbind(2)
        last_BT, score_BT = spans_from(start_BT, end_BT, content_BT)
        if loose:
            score_BT = best_of_row(score_BT, LOOSE_SPANS)
        row_M, first_M = (score_BT > threshold).nonzero(as_tuple=True)
        subjects_M3 = torch.stack([row_M, first_M, last_BT[row_M, first_M]], 1)
        score_M = score_BT[row_M, first_M]
        at_once = max(1, SCORES_AT_ONCE // (2 * self.predicates * content_BT.shape[1]))
        for some_M3, some_M in zip(subjects_M3.split(at_once), score_M.split(at_once), strict=True):
            yield from self._of_subjects(hidden_BTH, content_BT, some_M3, some_M, threshold, loose)

    def _of_subjects(
        self,
        hidden_BTH: torch.Tensor,
        content_BT: torch.Tensor,
        subjects_M3: torch.Tensor,
        score_M: torch.Tensor,
        threshold: float,
        loose: bool,
    ) -> Iterator[Found]:
        """The triples of some subjects, in their order."""
        allowed_M1T = content_BT[subjects_M3[:, 0]][:, None]
        start_MPT, end_MPT = scores(self.objects(hidden_BTH, subjects_M3), OBJECT_POWER).unbind(3)
        last_MPT, score_MPT = spans_from(start_MPT, end_MPT, allowed_M1T)
        score_MPT = torch.minimum(score_MPT, score_M[:, None, None])
        if loose:
            best_MX = best_of_row(score_MPT.flatten(1), LOOSE_OBJECTS)
            score_MPT = best_MX.view_as(score_MPT)
        subject_K, predicate_K, first_K = (score_MPT > threshold).nonzero(as_tuple=True)
        cells = subject_K, predicate_K, first_K
        columns = (*subjects_M3[subject_K].T, *cells[1:], last_MPT[cells])
        score_K = score_MPT[cells].tolist()
        for place, score in zip(torch.stack(columns, 1).tolist(), score_K, strict=True):
            row, s_first, s_last, predicate, o_first, o_last = place
            yield Found(row, (s_first, s_last), (o_first, o_last), predicate, score)


def best_of_row(scores_BX: torch.Tensor, most: int) -> torch.Tensor:
    """The scores with -inf in place of all but the `most` best of a row."""
    if scores_BX.shape[1] <= most:
        return scores_BX
    best_BN, index_BN = scores_BX.topk(most, 1)
    return torch.full_like(scores_BX, -torch.inf).scatter(1, index_BN, best_BN)
