r"""Reading comprehension by pointing: where in the passage the answer starts, and where it ends.

    [CLS] question [SEP] passage [SEP]

    in   {"question": "长河的作者是谁？", "passages": ["《长河》是沈从文的小说", ...], "answers": ["沈从文"]}
    out  {..., "prediction": {"answer": "沈从文", "passage": 0, "span": [5, 8], "score": 0.43,
         "alternatives": []}}

Every span of at most L tokens of a window (`_mrc.reading`) has a score, and so has "the answer is
not here", which is said at [CLS]:

    s(i, j) = start_i + end_j        s(none) = start_0 + end_0
    p(i, j) = exp s(i, j) / (exp s(none) + sum over all spans of exp s)

The loss of a window is -log of the p of all its places that are right, together. Equal answers of
the windows m of a question are put together, and the best is the question's:

    score = sum_m p_m^2 / (1 + sum_m p_m)

Where questions may have no answer, there is none at or below a threshold of this score.

Source: pointers and the features of the input https://kexue.fm/archives/5409; the vote
https://kexue.fm/archives/7148; one softmax over spans: Fajcik et al. 2020, Rethinking the objectives
of extractive question answering, arxiv.org/abs/2008.12804, equation 3.
Differs from /5409: a softmax over spans in place of half-open pointers by token.
Legend: B examples, R rows (windows of all examples), T tokens, L lengths of spans less one, N gold
spans, X all spans of a window, F features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from nlpkit import task
from nlpkit.config import Share
from nlpkit.encoders.base import encode
from nlpkit.tasks._mrc.answers import Answer, Prediction
from nlpkit.tasks._mrc.matching import MatchEmbedding, Placed, match_features, places_of
from nlpkit.tasks._mrc.reading import Reading
from nlpkit.tasks._mrc.settings import ReadingSettings
from nlpkit.tasks._mrc.threshold import best_threshold
from nlpkit.tasks._mrc.vote import LISTED, vote
from nlpkit.tasks._mrc.windows import Example, Window, groups, mean_by_group
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import Encoding, Span, TokenBatch

NEGATIVE_INFINITY = float("-inf")


@dataclass(frozen=True)
class Settings(ReadingSettings):
    """Settings, section `mrc_span`."""

    threshold: Share | None = None
    """Of the score, at or below which there is no answer, where questions may have none; none:
    tuned on the dev set at every evaluation."""


@dataclass(frozen=True)
class Batch(TensorFields):
    """A row for every window of the examples, and, where gold is known, its right spans."""

    examples: list[Example]
    tokens: TokenBatch
    group_R: torch.Tensor
    passage_RT: torch.Tensor
    """Whether a token is one of the passage."""
    features_RTF: torch.Tensor | None
    gold_N3: torch.Tensor | None
    """(row, first token, length less one)."""


class Model(nn.Module):
    """An encoder and two pointers."""

    def __init__(self, encoder: Any, longest: int, matches: bool):
        super().__init__()
        self.encoder = encoder
        self.longest = longest
        self.match = MatchEmbedding(encoder) if matches else None
        self.pointers = nn.Linear(encoder.hidden_size, 2)

    def forward(self, batch: Batch) -> torch.Tensor:
        """The mean over the windows of each example: (B,)."""
        assert batch.gold_N3 is not None
        log_p_RTL, log_p_none_R = self.log_probs(batch)
        row_N, first_N, length_N = batch.gold_N3.unbind(1)
        rows = len(log_p_none_R)
        gold_RTL = torch.full_like(log_p_RTL, NEGATIVE_INFINITY)
        gold_RTL[row_N, first_N, length_N] = log_p_RTL[row_N, first_N, length_N]
        has_gold_R = torch.zeros(rows, dtype=torch.bool, device=row_N.device)
        has_gold_R[row_N] = True
        # a row without gold gets a finite stand-in: the gradient of a sum of nothing is none
        gold_RX = gold_RTL.flatten(1).masked_fill(~has_gold_R[:, None], 0.0)
        loss_R = -torch.where(has_gold_R, gold_RX.logsumexp(1), log_p_none_R)
        return mean_by_group(loss_R, batch.group_R)

    def log_probs(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """(log_p_RTL of the span of l + 1 tokens from each token, log_p_none_R), in float32."""
        words_RTE = None
        if self.match is not None:
            words_RTE = self.match(self.encoder, batch.tokens.token_ids_BT, batch.features_RTF)
        hidden_RTH = encode(self.encoder, batch.tokens, words_BTE=words_RTE)
        start_RT, end_RT = self.pointers(hidden_RTH).float().unbind(2)
        none_R = start_RT[:, 0] + end_RT[:, 0]
        score_RTL = span_scores(start_RT, end_RT, batch.passage_RT, self.longest)
        all_RX = torch.cat([none_R[:, None], score_RTL.flatten(1)], 1)
        total_R = all_RX.logsumexp(1)
        return score_RTL - total_R[:, None, None], none_R - total_R


def span_scores(
    start_RT: torch.Tensor, end_RT: torch.Tensor, allowed_RT: torch.Tensor, longest: int
) -> torch.Tensor:
    """score_RTL[r, i, l] = start[r, i] + end[r, i + l] for l < `longest`; -inf where a token of the
    two is not allowed."""
    start_RT = start_RT.masked_fill(~allowed_RT, NEGATIVE_INFINITY)
    end_RT = end_RT.masked_fill(~allowed_RT, NEGATIVE_INFINITY)
    padded_RW = nn.functional.pad(end_RT, (0, longest - 1), value=NEGATIVE_INFINITY)
    return start_RT[:, :, None] + padded_RW.unfold(1, longest, 1)


class Task(Reading, task.Task[Example, Batch, Prediction]):
    """See the module docstring."""

    Config = Settings
    points = True

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """A row for every window."""
        rows: list[Encoding] = []
        questions: list[Placed] = []
        passages: list[Placed] = []
        gold = []
        for example in examples:
            first = len(example.question)  # of the passage: [CLS] and [SEP] are around the question
            for window in example.windows:
                for start, end in window.spans:
                    gold.append((len(rows), first + start, end - start - 1))
                rows.append(example.question.followed_by(window.encoding))
                questions.append((1, example.question_ids))
                passages.append((first, window.token_ids))
        tokens = self.tokenizer.collate(rows)
        width = tokens.token_ids_BT.shape[1]
        features_RTF = None
        if self.config.match_features:
            features_RTF = match_features(questions, passages, width, self.tokenizer.unk_id)
        return Batch(
            list(examples),
            tokens,
            groups(examples),
            places_of(passages, width),
            features_RTF,
            torch.tensor(gold, dtype=torch.int64).reshape(-1, 3) if targets else None,
        )

    def build_model(self, encoder: nn.Module) -> Model:
        """The encoder and pointers with fresh weights."""
        return Model(encoder, self.max_answer, bool(self.config.match_features))

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """The best answer over all windows of every example."""
        log_p_RTL, _ = model.log_probs(batch)
        log_p_RX = log_p_RTL.flatten(1)
        best_RN, index_RN = log_p_RX.topk(min(LISTED, log_p_RX.shape[1]))
        found = zip(best_RN.tolist(), index_RN.tolist(), strict=True)
        predictions = []
        for example in batch.examples:
            answers = []
            for window, (log_ps, indices) in zip(example.windows, found, strict=False):
                spans = [self._span(index, len(example.question)) for index in indices]
                answers.append(_answers(window, log_ps, spans))
            prediction = vote(answers)
            predictions.append(prediction if loose else self.cut(prediction, self.config))
        return predictions

    def _span(self, index: int, first: int) -> Span:
        """The span of a window's tokens, from its place among all spans of the row."""
        start = index // self.max_answer - first
        return start, start + index % self.max_answer + 1

    @property
    def tunes(self) -> bool:
        """Whether a threshold is needed and was left open."""
        return bool(self.config.no_answer) and self.config.threshold is None

    def tune(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> Settings:
        """The threshold with the best F1 of the answers, no answer included."""
        return replace(self.config, threshold=best_threshold(pairs))

    def cut(self, prediction: Prediction, settings: Settings) -> Prediction:
        """No answer where the score is not above the threshold; what was best is listed then."""
        threshold = settings.threshold
        if not settings.no_answer or threshold is None or not prediction.answer:
            return prediction
        if (prediction.score or 0.0) > threshold:
            return prediction
        best = Answer(prediction.answer, prediction.passage, prediction.span, prediction.score)
        return Prediction("", alternatives=[best, *prediction.alternatives])


def _answers(window: Window, log_ps: Sequence[float], spans: Sequence[Span]) -> list[Answer]:
    """The answers at some spans of a window, without places that are no span of it."""
    pairs = zip(spans, log_ps, strict=True)
    return [window.answer(span, math.exp(log_p)) for span, log_p in pairs if log_p > -math.inf]
