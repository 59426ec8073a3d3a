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

import torch
from torch import nn

from nlpkit import task
from nlpkit.config import Size
from nlpkit.decoding.passage import PassageConstraint
from nlpkit.decoding.search import beam_search
from nlpkit.layers.prefix_lm import (
    CachedDecoder,
    Pair,
    PrefixBatch,
    PrefixLM,
    collate_pairs,
    collate_sources,
)
from nlpkit.tasks._mrc.answers import Answer, Prediction
from nlpkit.tasks._mrc.reading import Reading, check_limits
from nlpkit.tasks._mrc.windows import Example, Window, groups, mean_by_group
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import TokenBatch


@dataclass(frozen=True)
class Settings:
    """Settings, section `mrc_seq2seq`."""

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
    beam_size: Size = 4
    """Answers that are written side by side; the best is the answer, the others are listed."""

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True)
class Batch(TensorFields):
    """A row for every window of the examples; `pairs` is for the loss, `sources` for decoding."""

    examples: list[Example]
    sources: TokenBatch
    group_R: torch.Tensor
    pairs: PrefixBatch | None


class Model(PrefixLM):
    """A prefix language model, and its loss by question."""

    # of windows in groups
    def forward(self, batch: Batch) -> torch.Tensor:  # type: ignore[override]
        """The mean over the windows of each example: (B,)."""
        assert batch.pairs is not None
        return mean_by_group(super().forward(batch.pairs), batch.group_R)


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
        windows = [(example, window) for example in examples for window in example.windows]
        sources = [
            [*window.token_ids, self.tokenizer.sep_id, *example.question]
            for example, window in windows
        ]
        pairs = None
        if targets:
            answered = zip(sources, windows, strict=True)
            pairs = collate_pairs(
                [Pair(source, w.target) for source, (_, w) in answered], self.tokenizer
            )
        return Batch(
            list(examples), collate_sources(sources, self.tokenizer), groups(examples), pairs
        )

    def build_model(self, encoder: nn.Module) -> Model:
        """The encoder as it is."""
        return Model(encoder)

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """One answer from all windows of every example."""
        decoder = CachedDecoder(model.encoder, batch.sources)
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
