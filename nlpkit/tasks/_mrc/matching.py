"""Match features: what a token of the question or the passage has in common with the other text.

For n = 1, 2, 3: whether the token lies in a run of n tokens that the other text has too. A reader
that is told so need not find out by attention which parts of the passage the question talks about.
Learnt vectors of the features, which start at zero, are added to the tokens' own; those of the
question and those of the passage are others.

Source: the features of https://kexue.fm/archives/5409.
Differs from it: binary runs of tokens in place of words and edit distances.
Legend: R rows, T tokens, F features, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from nlpkit.errors import SettingsError

RUNS = (1, 2, 3)
"""Lengths of the runs, in tokens."""
FEATURES = 2 * len(RUNS)
"""Of every token: those of the question, then those of the passage."""
MOST_TOKENS = 1 << 20  # of a vocabulary: runs of three are told apart by an int64


Placed = tuple[int, Sequence[int]]
"""The column of a row at which a text begins, and its token ids."""


def match_features(
    questions: Sequence[Placed], passages: Sequence[Placed], width: int, unk_id: int
) -> torch.Tensor:
    """features_RTF of rows, `width` tokens wide, in which a question and a piece of a passage
    stand.

    Unknown characters are all one token, and so never in common.
    """
    features_RTF = np.zeros((len(questions), width, FEATURES), dtype=np.float32)
    for features_TF, question, passage in zip(features_RTF, questions, passages, strict=True):
        for own, other, first in ((question, passage, 0), (passage, question, len(RUNS))):
            column, token_ids = own
            ids = _known(token_ids, unk_id, -1)
            others = _known(other[1], unk_id, -2)
            for index, length in enumerate(RUNS):
                is_in = _in_common(ids, others, length)
                features_TF[column : column + len(ids), first + index] = is_in
    return torch.from_numpy(features_RTF)


def places_of(texts: Sequence[Placed], width: int) -> torch.Tensor:
    """Whether a column of each row belongs to its text: bool (R, T)."""
    first_R1 = torch.tensor([column for column, _ in texts])[:, None]
    length_R1 = torch.tensor([len(token_ids) for _, token_ids in texts])[:, None]
    position_T = torch.arange(width)
    return (position_T >= first_R1) & (position_T < first_R1 + length_R1)


def _known(token_ids: Sequence[int], unk_id: int, instead: int) -> np.ndarray:
    """The token ids with `instead` for unknown ones."""
    ids = np.asarray(token_ids, dtype=np.int64)
    return np.where(ids == unk_id, instead, ids)


def _in_common(token_ids: np.ndarray, others: np.ndarray, length: int) -> np.ndarray:
    """Whether each token lies in a run of `length` tokens that the others have too."""
    is_in = np.zeros(len(token_ids), dtype=bool)
    found = np.flatnonzero(np.isin(_runs(token_ids, length), _runs(others, length)))
    for offset in range(length):
        is_in[found + offset] = True
    return is_in


def _runs(token_ids: np.ndarray, length: int) -> np.ndarray:
    """A number for every run of `length` tokens, equal for equal runs."""
    count = max(0, len(token_ids) - length + 1)
    numbers = np.zeros(count, dtype=np.int64)
    for offset in range(length):
        numbers = numbers * MOST_TOKENS + token_ids[offset : offset + count]
    return numbers


class MatchEmbedding(nn.Module):
    """Adds the vectors of match features to those of the tokens.

    Raises SettingsError for an encoder whose input vectors cannot be added to.
    """

    def __init__(self, encoder: Any):
        super().__init__()
        if not hasattr(encoder, "word_vectors"):
            raise SettingsError(
                "match_features: the encoder takes no vectors in the place of tokens",
                hint="set match_features=false, or take --encoder tiny",
            )
        size = encoder.word_vectors(torch.zeros(1, 1, dtype=torch.int64)).shape[-1]
        self.project = nn.Linear(FEATURES, size, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(
        self, encoder: Any, token_ids_RT: torch.Tensor, features_RTF: torch.Tensor
    ) -> torch.Tensor:
        """words_RTE, for `encode`."""
        return encoder.word_vectors(token_ids_RT) + self.project(features_RTF)
