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
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from nlpkit import task
from nlpkit.config import Size
from nlpkit.decoding.passage import PassageConstraint
from nlpkit.decoding.search import beam_search
from nlpkit.encoders.base import encode
from nlpkit.errors import SettingsError
from nlpkit.layers.prefix_lm import collate_sources
from nlpkit.tasks._mrc.answers import Answer, Prediction, normalise
from nlpkit.tasks._mrc.passage_spans import Positions, best_spans
from nlpkit.tasks._mrc.reading import Reading, check_limits
from nlpkit.tasks._mrc.windows import Example, Window, groups, mean_by_group
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import Span, TokenBatch, Tokenizer

MASK = "[MASK]"
LISTED = 5
"""The best of every window take part in the vote, and the best of all are listed."""


@dataclass(frozen=True)
class Settings:
    """Settings, section `mrc_mlm`."""

    max_passage: Size = 256
    """Longer passages are read in overlapping windows of so many tokens (fewer where the encoder
    takes fewer)."""
    max_question: Size = 128
    """Tokens; a longer question is an error."""
    max_answer: Size | None = None
    """Tokens; of a longer answer only so many can be given. None: 32, or 64 where more than a
    twentieth of the training data's answers have over 32 characters."""
    no_answer: bool | None = None
    """Whether the answer to a question may be that there is none; none: if it is so in the training
    data."""
    decoding: Literal["exact", "greedy"] = "exact"
    """The best piece of a window, or the one that a walk from token to token comes to."""

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True)
class Batch(TensorFields):
    """A row for every window of the examples, and, where gold is known, the row's tokens with the
    end."""

    examples: list[Example]
    tokens: TokenBatch
    group_R: torch.Tensor
    targets_RL: torch.Tensor | None
    """-1 behind the end."""


class Model(nn.Module):
    """An encoder with its masked-LM head."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: Batch) -> torch.Tensor:
        """The mean over the windows of each example: (B,)."""
        assert batch.targets_RL is not None
        is_target_RL = batch.targets_RL >= 0
        hidden_RLH = encode(self.encoder, batch.tokens)[:, 1 : is_target_RL.shape[1] + 1]
        logits_NV = self.encoder.token_logits(hidden_RLH[is_target_RL])
        loss_N = nn.functional.cross_entropy(
            logits_NV.float(), batch.targets_RL[is_target_RL], reduction="none"
        )
        loss_R = loss_N.new_zeros(len(is_target_RL)).index_add(
            0, is_target_RL.nonzero()[:, 0], loss_N
        )
        return mean_by_group(loss_R, batch.group_R)

    def log_probs(self, batch: Batch, positions: int) -> torch.Tensor:
        """log_probs_RLV at the masks."""
        hidden_RTH = encode(self.encoder, batch.tokens)
        return self.encoder.token_logits(hidden_RTH[:, 1 : positions + 1]).float().log_softmax(-1)


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
        for example in examples:
            for window in example.windows:
                rows.append([*self.masks, end_id, *example.question, end_id, *window.token_ids])
                wanted.append(torch.tensor([*window.target, end_id]))
        targets_RL = None
        if targets:
            targets_RL = nn.utils.rnn.pad_sequence(wanted, True, -1)
        return Batch(
            list(examples), collate_sources(rows, self.tokenizer), groups(examples), targets_RL
        )

    def build_model(self, encoder: nn.Module) -> Model:
        """The encoder as it is."""
        return Model(encoder)

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """The best answer over all windows of every example."""
        log_probs_RLV = model.log_probs(batch, len(self.masks))
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
            predictions.append(self._vote(answers))
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

    def _vote(self, windows: Sequence[Sequence[Answer]]) -> Prediction:
        """The best answers of several windows, equal ones put together, and the others."""
        equal: dict[str, list[Answer]] = {}
        for answers in windows:
            for string, answer in {
                normalise(answer.answer): answer for answer in reversed(answers)
            }.items():
                equal.setdefault(string, []).append(answer)
        ranked = sorted(map(_merged, equal.values()), key=lambda answer: -(answer.score or 0.0))
        best, *others = ranked or [Answer("")]
        return Prediction(**vars(best), alternatives=others[: LISTED - 1])


def _merged(answers: list[Answer]) -> Answer:
    """The first of equal answers, with the score of all."""
    scores = [answer.score or 0.0 for answer in answers]
    return replace(answers[0], score=float(f"{sum(s * s for s in scores) / (1 + sum(scores)):.4g}"))
