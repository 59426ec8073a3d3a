r"""Reading comprehension by pointing: where in the passage the answer starts, and where it ends.

    [CLS] question [SEP] passage [SEP]

    in   {"question": "长河的作者是谁？", "passages": ["《长河》是沈从文的小说", ...], "answers": ["沈从文"]}
    out  {..., "prediction": {"answer": "沈从文", "passage": 0, "span": [5, 8], "score": 6.2,
         "alternatives": []}}

Every span of at most L tokens of a window (`_mrc.reading`) has a score, the pointers' beyond what
they give [CLS], which stands for "the answer is not here":

    s(i, j) = start_i + end_j - (start_0 + end_0)
    p(i, j) = exp s(i, j) / (1 + sum over all spans of exp s)        p(none) = 1 / (1 + sum ...)

The loss of a window is -log of the p of all its places that are right, together. The answer to a
question is the span with the best s of all windows: s = log p(i, j) / p(none) can be compared
between windows, while p is high too where a window without the answer has but one thing to offer.
Where questions may have no answer, there is none at or below a threshold of s.

Source: pointers and the features of the input https://kexue.fm/archives/5409; one softmax over
spans: Fajcik et al. 2020, arxiv.org/abs/2008.12804; all right places together, and "none" at
[CLS]: Clark and Gardner 2018, arxiv.org/abs/1710.10723.
Differs from /5409: a softmax over spans in place of half-open pointers by token.
Measured: the run of `_mrc/README.md` after two of its three epochs, windows of 256, the first 150
questions of CMRC 2018's trial: `cmrc_f1` of the best s 0.593, of the best p 0.466, of votes by p
(https://kexue.fm/archives/7148) 0.472.
Legend: B examples, R rows (windows of all examples), T tokens, L lengths of spans less one, N gold
spans or best spans, X all spans of a window and none, F features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from nlpkit import task
from nlpkit.config import Score
from nlpkit.decoding.best import NEGATIVE_INFINITY, first_best
from nlpkit.encoders.base import encode
from nlpkit.tasks._mrc.answers import Answer, Prediction, normalise
from nlpkit.tasks._mrc.matching import MatchEmbedding, Placed, match_features, places_of
from nlpkit.tasks._mrc.reading import Reading
from nlpkit.tasks._mrc.settings import ReadingSettings
from nlpkit.tasks._mrc.threshold import best_threshold
from nlpkit.tasks._mrc.vote import LISTED
from nlpkit.tasks._mrc.windows import Example, groups, mean_by_group
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import Encoding, Span, TokenBatch


@dataclass(frozen=True)
class Settings(ReadingSettings):
    """Settings, section `mrc_span`."""

    threshold: Score | None = None
    """Where questions may have no answer, there is none at or below this score; none: tuned on the
    dev set at every evaluation."""


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
        score_RTL = self.scores(batch)
        row_N, first_N, length_N = batch.gold_N3.unbind(1)
        # "the answer is not here" has score 0
        all_RX = nn.functional.pad(score_RTL.flatten(1), (1, 0))
        right_RTL = torch.zeros_like(score_RTL, dtype=torch.bool)
        right_RTL[row_N, first_N, length_N] = True
        right_RX = nn.functional.pad(right_RTL.flatten(1), (1, 0))
        right_RX[:, 0] = ~right_RX.any(1)
        right_score_RX = all_RX.masked_fill(~right_RX, NEGATIVE_INFINITY)
        loss_R = all_RX.logsumexp(1) - right_score_RX.logsumexp(1)
        return mean_by_group(loss_R, batch.group_R)

    def scores(self, batch: Batch) -> torch.Tensor:
        """score_RTL of the span of l + 1 tokens from each token, in float32; -inf of what is no
        span of the passage."""
        words_RTE = None
        if self.match is not None:
            words_RTE = self.match(self.encoder, batch.tokens.token_ids_BT, batch.features_RTF)
        hidden_RTH = encode(self.encoder, batch.tokens, words_BTE=words_RTE)
        start_RT, end_RT = self.pointers(hidden_RTH).float().unbind(2)
        start_RT = start_RT - start_RT[:, :1]
        end_RT = end_RT - end_RT[:, :1]
        return span_scores(start_RT, end_RT, batch.passage_RT, self.longest)


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
        score_RX = model.scores(batch).flatten(1)
        best_RN, index_RN = first_best(score_RX, min(LISTED, score_RX.shape[1]))
        found = zip(best_RN.tolist(), index_RN.tolist(), strict=True)
        predictions = []
        for example in batch.examples:
            answers: list[Answer] = []
            for window, (scores, indices) in zip(example.windows, found, strict=False):
                for score, index in zip(scores, indices, strict=True):
                    if score > NEGATIVE_INFINITY:
                        span = self._span(index, len(example.question))
                        answers.append(window.answer(span, score))
            prediction = best_answer(answers)
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
        threshold = settings.threshold or 0.0
        is_certain = not settings.no_answer or (prediction.score or 0.0) > threshold
        if is_certain or not prediction.answer:
            return prediction
        best = Answer(prediction.answer, prediction.passage, prediction.span, prediction.score)
        return Prediction("", alternatives=[best, *prediction.alternatives])


def best_answer(answers: Sequence[Answer]) -> Prediction:
    """The best of some answers, and the best others; equal ones count once, with the best score."""
    equal: dict[str, Answer] = {}
    for answer in sorted(answers, key=lambda answer: -(answer.score or 0.0)):
        equal.setdefault(normalise(answer.answer), answer)
    best, *others = list(equal.values()) or [Answer("")]
    return Prediction(**vars(best), alternatives=others[: LISTED - 1])
