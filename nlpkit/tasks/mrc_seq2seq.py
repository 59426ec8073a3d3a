r"""Reading comprehension by writing: the answer token by token, only as it stands in one of the
passages.

    [CLS] passage [SEP] question [SEP] answer [SEP]          see `nlpkit.layers.prefix_lm`

    in   {"question": "长河的作者是谁？", "passages": ["《长河》是沈从文的小说", ...], "answers": ["沈从文"]}
    out  {..., "prediction": {"answer": "沈从文", "passage": 0, "span": [5, 8], "score": 0.43,
         "alternatives": []}}

The loss of a window (`_mrc.reading`) is the sum over the answer's tokens and its end: the mean
would make too much of windows that answer nothing. A window where the end is likeliest at once
answers nothing. The others, m, write one answer together: in every step each gives the distribution
p_m after what was written so far, and the search goes on

    q(v) = p(v) / sum_u p(u)         p(v) = sum_m p_m(v)^2 / (1 + sum_m p_m(v))

among those v that continue a piece of one of these windows. The score is the geometric mean of q
over the answer's tokens and its end.

Source: https://kexue.fm/archives/7115; published: 0.7699 final on a validation set of SogouQA with
BERT-base, one beam.
Differs from it: with one beam not at all, but that a window which answers at all does not give an
empty answer. With several, p as it is takes log 2 or more for every token, and sums prefer short
answers: hence q and the mean.
Legend: B examples, R rows (windows of all examples), K beams, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nlpkit import task
from nlpkit.config import Size
from nlpkit.decoding.passage import PassageConstraint
from nlpkit.decoding.search import beam_search
from nlpkit.encoders.base import encode
from nlpkit.layers.cached_decoder import CachedDecoder
from nlpkit.layers.prefix_lm import (
    Pair,
    PrefixBatch,
    PrefixLM,
    collate_pairs,
    collate_sources,
)
from nlpkit.tasks._mrc.answers import Answer, Prediction
from nlpkit.tasks._mrc.copying import CopyHead
from nlpkit.tasks._mrc.matching import MatchEmbedding, Placed, match_features, places_of
from nlpkit.tasks._mrc.reading import Reading
from nlpkit.tasks._mrc.settings import WritingSettings
from nlpkit.tasks._mrc.windows import Example, Window, groups, mean_by_group
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import TokenBatch


@dataclass(frozen=True)
class Settings(WritingSettings):
    """Settings, section `mrc_seq2seq`."""

    beam_size: Size = 4
    """Answers that are written side by side; the best is the answer, the others are listed."""


@dataclass(frozen=True)
class Rows(TensorFields):
    """Where in some rows the passages are, and what is in common with the question."""

    passage_RT: torch.Tensor
    """Whether a token is one of the passage."""
    features_RTF: torch.Tensor | None


@dataclass(frozen=True)
class Batch(TensorFields):
    """A row for every window of the examples; `pairs` is for the loss, `sources` for decoding."""

    examples: list[Example]
    sources: TokenBatch
    of_sources: Rows
    group_R: torch.Tensor
    pairs: PrefixBatch | None
    of_pairs: Rows | None


class Model(PrefixLM):
    """A prefix language model, what copies from the passage, and the loss by question."""

    def __init__(self, encoder: Any, config: WritingSettings):
        super().__init__(encoder)
        self.match = MatchEmbedding(encoder) if config.match_features else None
        self.copy = CopyHead(encoder.hidden_size) if config.copies else None

    # of windows in groups
    def forward(self, batch: Batch) -> torch.Tensor:  # type: ignore[override]
        """The mean over the windows of each example: (B,)."""
        assert batch.pairs is not None
        assert batch.of_pairs is not None
        log_probs_NV = self.log_probs(batch.pairs, batch.of_pairs)
        loss_N = nn.functional.nll_loss(log_probs_NV, batch.pairs.targets_N, reduction="none")
        row_N = batch.pairs.places_N // batch.pairs.tokens.token_ids_BT.shape[1]
        loss_R = loss_N.new_zeros(len(batch.group_R)).index_add(0, row_N, loss_N)
        return mean_by_group(loss_R, batch.group_R)

    def log_probs(self, pairs: PrefixBatch, rows: Rows) -> torch.Tensor:
        """log_probs_NV at the places of the pairs, in float32."""
        words_RTE = self.words(pairs.tokens, rows)
        hidden_RTH = encode(self.encoder, pairs.tokens, "prefix", words_BTE=words_RTE)
        hidden_NH = hidden_RTH.flatten(0, 1)[pairs.places_N]
        logits_NV = self.encoder.token_logits(hidden_NH)
        if self.copy is None:
            return logits_NV.float().log_softmax(-1)
        score_RTT = self.copy.scores(hidden_RTH, hidden_RTH, rows.passage_RT)
        score_NT = score_RTT.flatten(0, 1)[pairs.places_N]
        token_ids_NT = pairs.tokens.token_ids_BT[pairs.places_N // hidden_RTH.shape[1]]
        return self.copy.log_probs(logits_NV, hidden_NH, score_NT, token_ids_NT)

    def words(self, tokens: TokenBatch, rows: Rows) -> torch.Tensor | None:
        """What is read in place of the tokens' own vectors: (R, T, E); None for nothing."""
        if self.match is None:
            return None
        return self.match(self.encoder, tokens.token_ids_BT, rows.features_RTF)

    def decoder(self, batch: Batch) -> CachedDecoder:
        """What writes the answers of the sources."""
        words_RSE = self.words(batch.sources, batch.of_sources)
        if self.copy is None:
            return CachedDecoder(self.encoder, batch.sources, words_RSE)
        copied_RS = batch.of_sources.passage_RT
        return CopyingDecoder(self.encoder, batch.sources, words_RSE, self.copy, copied_RS)


class CopyingDecoder(CachedDecoder):
    """Log-probabilities of tokens written, or copied from the source where `copied_RS` is true."""

    packs = False

    def __init__(
        self,
        encoder: Any,
        sources: TokenBatch,
        words_RSE: torch.Tensor | None,
        copy: CopyHead,
        copied_RS: torch.Tensor,
    ):
        super().__init__(encoder, sources, words_RSE)
        self.copy = copy
        self.token_ids_RS = self.sources.token_ids_BT
        more = self.token_ids_RS.shape[1] - copied_RS.shape[1]
        self.copied_RS = nn.functional.pad(copied_RS, (0, more))

    def keep_source(self, hidden_BSH: torch.Tensor) -> None:
        """Keeps the vectors to point at."""
        self.hidden_RSH = hidden_BSH

    def logits(self, hidden_RKH: torch.Tensor) -> torch.Tensor:
        """log p_RKV."""
        score_RKS = self.copy.scores(hidden_RKH, self.hidden_RSH, self.copied_RS)
        token_ids_RKS = self.token_ids_RS[:, None].expand_as(score_RKS)
        logits_RKV = super().logits(hidden_RKH)
        return self.copy.log_probs(logits_RKV, hidden_RKH, score_RKS, token_ids_RKS)

    def _keep(self, row_N: torch.Tensor) -> None:
        super()._keep(row_N)
        self.hidden_RSH = self.hidden_RSH[row_N]
        self.copied_RS = self.copied_RS[row_N]
        self.token_ids_RS = self.token_ids_RS[row_N]


class Voters:
    """`Model` of nlpkit.decoding: what the sources of a group write together; `group_R` says which
    is whose."""

    def __init__(
        self, decoder: CachedDecoder, first_RV: torch.Tensor, group_R: torch.Tensor, groups: int
    ):
        self.decoder = decoder
        self.first_RV = first_RV
        self.group_R = group_R
        self.groups = groups

    def first(self) -> torch.Tensor:
        """log p of the first token of every group: (B, V)."""
        return self.vote(self.first_RV[:, None])[:, 0]

    def next(self, token_BK: torch.Tensor, beam_BK: torch.Tensor) -> torch.Tensor:
        """log p of each group after `token_BK`: (B, K, V)."""
        return self.vote(self.decoder.next(token_BK[self.group_R], beam_BK[self.group_R]))

    def vote(self, logits_RKV: torch.Tensor) -> torch.Tensor:
        """log p_BKV from the logits of the sources; a group without any is not looked at."""
        p_RKV = logits_RKV.float().softmax(-1)
        total_BKV = p_RKV.new_zeros(self.groups, *p_RKV.shape[1:]).index_add(0, self.group_R, p_RKV)
        squares_BKV = torch.zeros_like(total_BKV).index_add_(0, self.group_R, p_RKV.square_())
        # no token is quite impossible, so that a piece can always be gone on with
        return (squares_BKV / (1 + total_BKV)).clamp_min(torch.finfo(torch.float32).tiny).log()


class Task(task.Writes, Reading, task.Task[Example, Batch, Prediction]):
    """See the module docstring."""

    Config = Settings

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """A row for every window."""
        pairs = []
        for example in examples:
            for window in example.windows:
                source = [*window.token_ids, self.tokenizer.sep_id, *example.question_ids]
                pairs.append(Pair(source, window.target))
        sources = collate_sources([pair.source for pair in pairs], self.tokenizer)
        learnt = collate_pairs(pairs, self.tokenizer) if targets else None
        return Batch(
            list(examples),
            sources,
            self.rows_of(sources, examples),
            groups(examples),
            learnt,
            self.rows_of(learnt.tokens, examples) if learnt else None,
        )

    def rows_of(self, tokens: TokenBatch, examples: Sequence[Example]) -> Rows:
        """Where the passages are in rows of tokens that begin with the examples' windows."""
        passages: list[Placed] = []
        questions: list[Placed] = []
        for example in examples:
            for window in example.windows:
                passage = window.token_ids
                passages.append((1, passage))
                questions.append((len(passage) + 2, example.question_ids))
        width = tokens.token_ids_BT.shape[1]
        features_RTF = None
        if self.config.match_features:
            features_RTF = match_features(questions, passages, width, self.tokenizer.unk_id)
        return Rows(places_of(passages, width), features_RTF)

    def build_model(self, encoder: nn.Module) -> Model:
        """The encoder, and what copies with fresh weights."""
        return Model(encoder, self.config)

    def beams_and_steps(self, example: Example) -> tuple[int, int]:
        """See `task.Writes`: every window has the beams."""
        return len(example.windows) * self.config.beam_size, self.max_answer

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """One answer from all windows of every example."""
        decoder = model.decoder(batch)
        first_RV = decoder.first()
        answering_R, windows = self.answering_windows(first_RV, batch.group_R, batch.examples)
        if not answering_R.any():
            return [Prediction("")] * len(windows)
        decoder.keep(answering_R)
        group_R = batch.group_R[answering_R]
        return self._write(Voters(decoder, first_RV[answering_R], group_R, len(windows)), windows)

    def _write(self, voters: Voters, windows: list[list[Window]]) -> list[Prediction]:
        """What the windows of every example write together."""
        passages = [[window.token_ids for window in some] for some in windows]
        constraint = PassageConstraint(
            passages, self.tokenizer.sep_id, device=voters.group_R.device
        )
        beam_size = self.config.beam_size
        longest = self.max_answer
        found = beam_search(
            voters, constraint, len(windows), beam_size, longest, length_normalised=True
        )
        predictions = []
        for row, hypotheses in enumerate(found.lists()):
            answers = []
            for (tokens, score), state in zip(
                hypotheses, found.state_BK[row].tolist(), strict=False
            ):
                place = constraint.locate(row, state, len(tokens))
                assert place is not None  # the constraint does not end before the first token
                window = windows[row][place[0]]
                if self.is_told_apart(window, place[1:], windows[row]):
                    answers.append(window.answer(place[1:], math.exp(score)))
            best, *others = answers or [Answer("")]
            predictions.append(Prediction(**vars(best), alternatives=others))
        return predictions
