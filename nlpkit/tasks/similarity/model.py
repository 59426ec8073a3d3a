"""The models of similarity: an encoder, and the mean of its states as the vector of a text.

Legend: B examples, N texts of an example, R rows, one a text, T tokens, H hidden, C groups, K numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nlpkit.encoders.base import encode
from nlpkit.errors import SettingsError
from nlpkit.tasks.similarity.batch import Batch
from nlpkit.tasks.similarity.losses import am_softmax, contrastive, cosent
from nlpkit.tasks.similarity.settings import Settings
from nlpkit.text.tokenizer import TokenBatch


class Model(nn.Module):
    """An encoder whose states are pooled to the vector of a text. `index` is what was built of a
    knowledge base with these weights."""

    def __init__(self, encoder: Any, config: Settings):
        super().__init__()
        if config.project >= encoder.hidden_size:
            raise SettingsError(
                f"similarity.project: expected fewer than the {encoder.hidden_size} numbers of a "
                f"vector, got {config.project}"
            )
        self.encoder = encoder
        self.config = config
        self.index: Any = None

    def train(self, mode: bool = True) -> Model:
        """Training changes the weights: the index goes."""
        if mode:
            self.index = None
        return super().train(mode)

    def vectors(self, tokens: TokenBatch) -> torch.Tensor:
        """vectors_RH of length 1, in float32 (float64 where the weights are)."""
        hidden_RTH = encode(self.encoder, tokens)
        if hidden_RTH.dtype != torch.float64:
            hidden_RTH = hidden_RTH.float()
        if self.config.pooling == "cls":
            return nn.functional.normalize(hidden_RTH[:, 0], dim=1)
        mask_RT1 = tokens.mask_BT[..., None].to(hidden_RTH.dtype)
        return nn.functional.normalize((hidden_RTH * mask_RT1).sum(1), dim=1)

    def example_vectors(self, batch: Batch) -> torch.Tensor:
        """(B, N, H) of examples of as many texts."""
        return self.vectors(batch.tokens).unflatten(0, (len(batch.texts), -1))


class GroupModel(Model):
    """With weights for each group, whose cosines with a text's vector are its logits."""

    def __init__(self, encoder: Any, config: Settings, groups: int):
        super().__init__(encoder, config)
        self.groups = nn.Embedding(groups, encoder.hidden_size)
        # Only directions count. From vectors of length 1 an optimizer turns them soon; from the
        # usual ones of length sqrt(H) hardly in an epoch.
        nn.init.normal_(self.groups.weight, std=encoder.hidden_size**-0.5)

    def forward(self, batch: Batch) -> torch.Tensor:
        """The loss of each text: (B,)."""
        assert batch.groups_B is not None
        vectors_BH = self.vectors(batch.tokens)
        margin = self.config.margin if self.config.loss == "am_softmax" else 0.0
        with torch.autocast(vectors_BH.device.type, enabled=False):  # cosines need their digits
            weight_CH = nn.functional.normalize(self.groups.weight, dim=1)
            cosine_BC = vectors_BH @ weight_CH.T
        return am_softmax(cosine_BC, batch.groups_B, margin, self.config.scale)


class PairModel(Model):
    """Whose loss compares the pairs of a step with each other: a `nlpkit.task.CoupledModel`."""

    def example_numbers(self, batch: Batch) -> torch.Tensor:
        """(B, 3) float64: see `Batch.numbers_BK`."""
        assert batch.numbers_BK is not None
        return batch.numbers_BK

    def coupled_loss(self, vectors_BNH: torch.Tensor, numbers_BK: torch.Tensor) -> torch.Tensor:
        """(B,)."""
        a_BH, b_BH = vectors_BNH.unbind(1)
        label_B = numbers_BK[:, 0]
        temperature = self.config.temperature
        if self.config.loss == "cosent":
            return cosent((a_BH * b_BH).sum(1), label_B, temperature)
        return contrastive(a_BH, b_BH, numbers_BK[:, 1:], label_B > 0, temperature)

    def forward(self, batch: Batch) -> torch.Tensor:
        """The losses of a batch that is a whole step: (B,)."""
        return self.coupled_loss(self.example_vectors(batch), self.example_numbers(batch))
