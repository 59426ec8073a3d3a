r"""Reading comprehension in one pass: the answer is read off masks in front of the question and the
passage.

    [CLS] [MASK] x (L + 1) [SEP] question [SEP] passage [SEP]

    in   {"question": "长河的作者是谁？", "passages": ["《长河》是沈从文的小说", ...], "answers": ["沈从文"]}
    out  {..., "prediction": {"answer": "沈从文", "passage": 0, "span": [5, 8], "score": 0.43,
         "alternatives": []}}

The masks are the answer's tokens and its end; the loss of a window (`_mrc.reading`) is the sum over
them: the mean would make too much of windows that answer nothing. A window where the end is
likeliest at once answers nothing; the others, the pieces that score best over all starts i and
lengths l <= L,

    log s = (sum_{t < l} log p_t(token_{i + t}) + log p_l(end)) / (l + 1)

Equal answers of several windows m are put together, and the best is the question's:

    score = sum_m s_m^2 / (1 + sum_m s_m)

Source: https://kexue.fm/archives/7148; published: 0.7745 final on a validation set of SogouQA with
BERT-base.
Differs from it: the best pieces of all instead of one by a greedy walk (`decoding=greedy`); s is
the geometric mean of the probabilities, not the arithmetic one; there is a mask more, for the end.
Legend: B examples, R rows (windows of all examples), L positions, N targets, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from nlpkit import task
from nlpkit.decoding.passage import PassageConstraint
from nlpkit.decoding.search import beam_search
from nlpkit.encoders.base import encode
from nlpkit.errors import SettingsError
from nlpkit.layers.prefix_lm import collate_sources
from nlpkit.tasks._mrc.answers import Answer, Prediction
from nlpkit.tasks._mrc.copying import CopyHead
from nlpkit.tasks._mrc.matching import MatchEmbedding, Placed, match_features, places_of
from nlpkit.tasks._mrc.passage_spans import Positions, best_spans
from nlpkit.tasks._mrc.reading import Reading
from nlpkit.tasks._mrc.settings import WritingSettings
from nlpkit.tasks._mrc.vote import LISTED, vote
from nlpkit.tasks._mrc.windows import Example, Window, groups, mean_by_group
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import Span, TokenBatch, Tokenizer

MASK = "[MASK]"


@dataclass(frozen=True)
class Settings(WritingSettings):
    """Settings, section `mrc_mlm`."""

    decoding: Literal["exact", "greedy"] = "exact"
    """The best piece of a window, or the one that a walk from token to token comes to."""


@dataclass(frozen=True)
class Batch(TensorFields):
    """A row for every window of the examples, and, where gold is known, the row's tokens with the
    end."""

    examples: list[Example]
    tokens: TokenBatch
    group_R: torch.Tensor
    passage_RT: torch.Tensor
    """Whether a token is one of the passage."""
    features_RTF: torch.Tensor | None
    targets_RL: torch.Tensor | None
    """-1 behind the end."""


class Model(nn.Module):
    """An encoder with its masked-LM head, and what copies from the passage."""

    def __init__(self, encoder: Any, config: WritingSettings):
        super().__init__()
        self.encoder = encoder
        self.match = MatchEmbedding(encoder) if config.match_features else None
        self.copy = CopyHead(encoder.hidden_size) if config.copies else None

    def forward(self, batch: Batch) -> torch.Tensor:
        """The mean over the windows of each example: (B,)."""
        assert batch.targets_RL is not None
        is_target_RL = batch.targets_RL >= 0
        log_probs_NV = self.log_probs(batch, is_target_RL)
        targets_N = batch.targets_RL[is_target_RL]
        loss_N = nn.functional.nll_loss(log_probs_NV, targets_N, reduction="none")
        row_N = is_target_RL.nonzero()[:, 0]
        loss_R = loss_N.new_zeros(len(is_target_RL)).index_add(0, row_N, loss_N)
        return mean_by_group(loss_R, batch.group_R)

    def log_probs(self, batch: Batch, wanted_RL: torch.Tensor) -> torch.Tensor:
        """log_probs_NV at the wanted of the first L masks, in float32."""
        tokens = batch.tokens
        words_RTE = None
        if self.match is not None:
            words_RTE = self.match(self.encoder, tokens.token_ids_BT, batch.features_RTF)
        hidden_RTH = encode(self.encoder, tokens, words_BTE=words_RTE)
        hidden_RLH = hidden_RTH[:, 1 : wanted_RL.shape[1] + 1]
        hidden_NH = hidden_RLH[wanted_RL]
        logits_NV = self.encoder.token_logits(hidden_NH)
        if self.copy is None:
            return logits_NV.float().log_softmax(-1)
        score_NT = self.copy.scores(hidden_RLH, hidden_RTH, batch.passage_RT)[wanted_RL]
        token_ids_NT = tokens.token_ids_BT[wanted_RL.nonzero()[:, 0]]
        return self.copy.log_probs(logits_NV, hidden_NH, score_NT, token_ids_NT)

    def log_probs_of_all(self, batch: Batch, positions: int) -> torch.Tensor:
        """log_probs_RLV at the first masks."""
        rows = len(batch.group_R)
        wanted_RL = torch.ones(rows, positions, dtype=torch.bool, device=batch.group_R.device)
        return self.log_probs(batch, wanted_RL).unflatten(0, (rows, positions))


class Task(Reading, task.Task[Example, Batch, Prediction]):
    """See the module docstring. Raises SettingsError for a vocabulary without [MASK]."""

    Config = Settings

    def __init__(self, config: Settings, tokenizer: Tokenizer, folder: Path | None):
        super().__init__(config, tokenizer, folder)
        mask_id = tokenizer.backend.token_to_id(MASK)
        if mask_id is None:
            raise SettingsError(f"the encoder's vocabulary has no {MASK}")
        self.masks = [mask_id] * (self.max_answer + 1)

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """A row for every window."""
        end_id = self.tokenizer.sep_id
        rows = []
        wanted = []
        questions: list[Placed] = []
        passages: list[Placed] = []
        for example in examples:
            for window in example.windows:
                question = (len(self.masks) + 2, example.question_ids)
                passage = (question[0] + len(question[1]) + 1, window.token_ids)
                questions.append(question)
                passages.append(passage)
                rows.append([*self.masks, end_id, *question[1], end_id, *passage[1]])
                wanted.append(torch.tensor([*window.target, end_id]))
        tokens = collate_sources(rows, self.tokenizer)
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
            nn.utils.rnn.pad_sequence(wanted, True, -1) if targets else None,
        )

    def build_model(self, encoder: nn.Module) -> Model:
        """The encoder, and what copies with fresh weights."""
        return Model(encoder, self.config)

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """The best answer over all windows of every example."""
        log_probs_RLV = model.log_probs_of_all(batch, len(self.masks))
        answering_R, windows = self.answering_windows(
            log_probs_RLV[:, 0], batch.group_R, batch.examples
        )
        if not answering_R.any():
            return [Prediction("")] * len(windows)
        log_probs_RLV = log_probs_RLV[answering_R]
        answering = list(chain.from_iterable(windows))
        find = self._best if self.config.decoding == "exact" else self._walk
        rows = zip(log_probs_RLV, find(log_probs_RLV, answering), strict=True)
        predictions = []
        for some in windows:
            answers = []
            for window, (log_probs_LV, spans) in zip(some, rows, strict=False):
                told = [span for span in spans if self.is_told_apart(window, span, some)]
                answers.append([self._answer(log_probs_LV, window, span) for span in told])
            predictions.append(vote(answers))
        return predictions

    def _best(self, log_probs_RLV: torch.Tensor, windows: Sequence[Window]) -> list[list[Span]]:
        """The best pieces of every window."""
        passages = [window.token_ids for window in windows]
        found = best_spans(
            log_probs_RLV, passages, self.tokenizer.sep_id, LISTED, length_normalised=True
        )
        spans = []
        for row in zip(*(part.tolist() for part in found), strict=True):
            places = zip(*row, strict=True)
            spans.append([(i, i + length) for s, i, length in places if s > -torch.inf])
        return spans

    def _walk(self, log_probs_RLV: torch.Tensor, windows: Sequence[Window]) -> list[list[Span]]:
        """The piece of every window that a walk from token to token comes to."""
        passages = [[window.token_ids] for window in windows]
        device = log_probs_RLV.device
        constraint = PassageConstraint(passages, self.tokenizer.sep_id, device=device)
        found = beam_search(Positions(log_probs_RLV), constraint, len(windows), 1, self.max_answer)
        ends = zip(found.state_BK[:, 0].tolist(), found.length_BK[:, 0].tolist(), strict=True)
        places = [constraint.locate(row, *end) for row, end in enumerate(ends)]
        return [[place[1:]] if place else [] for place in places]

    def _answer(self, log_probs_LV: torch.Tensor, window: Window, span: Span) -> Answer:
        """A piece of a window with its score s."""
        tokens = [*window.token_ids[slice(*span)], self.tokenizer.sep_id]
        return window.answer(span, float(log_probs_LV[range(len(tokens)), tokens].mean().exp()))
