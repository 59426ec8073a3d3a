"""The models of classification: a linear layer over a pooled vector, trained, behind a bottleneck, or
computed; and one that also learns from vectors that a generator makes up.

Legend: B batch, T tokens, H hidden, P = 2H pooled, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nlpkit.encoders.base import encode
from nlpkit.layers.adversarial import Adversary
from nlpkit.layers.bottleneck import Bottleneck
from nlpkit.layers.linear_discriminant import Sums, solve
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import TokenBatch


@dataclass(frozen=True)
class Batch(TensorFields):
    """Tokens and, where gold is known, the numbers of the labels; `drawn` is what vectors are made up
    from, or the seeds of a bottleneck's noise, (B, 1) (None: the model draws them)."""

    tokens: TokenBatch
    labels_B: torch.Tensor | None
    drawn: torch.Tensor | None = None


class Model(nn.Module):
    """Encoder and a linear layer over the pooled vector."""

    def __init__(self, encoder: Any, labels: int, dropout: float):
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * encoder.hidden_size, labels)

    def pooled(self, tokens: TokenBatch) -> torch.Tensor:
        """[CLS] and the mean of each text, (B, 2H), in the type of the weights."""
        dtype = self.classifier.weight.dtype
        hidden_BTH = encode(self.encoder, tokens).to(dtype)
        mask_BT1 = tokens.mask_BT[..., None].to(dtype)
        mean_BH = (hidden_BTH * mask_BT1).sum(1) / mask_BT1.sum(1)
        return torch.cat([hidden_BTH[:, 0], mean_BH], 1)

    def logits(self, tokens: TokenBatch) -> torch.Tensor:
        """logits_BL as precise as the weights, also under autocast."""
        pooled_BP = self.dropout(self.pooled(tokens))
        return self.classifier(pooled_BP).to(self.classifier.weight.dtype)

    def outputs(self, batch: Batch) -> Any:
        """`logits` of a batch."""
        return self.logits(batch.tokens)

    def log_probs(self, outputs: Any) -> torch.Tensor:
        """The distribution over the labels: (B, 1, L)."""
        return outputs.log_softmax(1)[:, None]

    def forward(self, batch: Batch) -> torch.Tensor:
        """The loss of each text: (B,)."""
        assert batch.labels_B is not None
        return nn.functional.cross_entropy(self.outputs(batch), batch.labels_B, reduction="none")


class BottleneckModel(Model):
    """With a bottleneck before the classifier."""

    def __init__(self, encoder: Any, labels: int, dropout: float, beta: float):
        super().__init__(encoder, labels, dropout)
        self.bottleneck = Bottleneck(2 * encoder.hidden_size)
        self.beta = beta

    def costed(
        self, tokens: TokenBatch, seed_B1: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits_BL, cost_B); in training with the noise of these seeds."""
        seed_B = None if seed_B1 is None else seed_B1[:, 0]
        z_BP, kl_B = self.bottleneck(self.dropout(self.pooled(tokens)), seed_B)
        return self.classifier(z_BP).to(z_BP.dtype), self.beta * kl_B

    def logits(self, tokens: TokenBatch) -> torch.Tensor:
        """logits_BL."""
        return self.costed(tokens)[0]

    def outputs(self, batch: Batch) -> Any:
        """`costed` of a batch."""
        return self.costed(batch.tokens, batch.drawn)

    def log_probs(self, outputs: Any) -> torch.Tensor:
        """As without a bottleneck."""
        return super().log_probs(outputs[0])

    def forward(self, batch: Batch) -> torch.Tensor:
        """The loss of each text with its cost: (B,)."""
        assert batch.labels_B is not None
        logits_BL, cost_B = self.outputs(batch)
        return nn.functional.cross_entropy(logits_BL, batch.labels_B, reduction="none") + cost_B


class AdversarialModel(Model):
    """Whose classifier also learns from vectors of the labels that an adversary makes up."""

    def __init__(self, encoder: Any, labels: int, dropout: float, weight: float, **adversary: Any):
        super().__init__(encoder, labels, dropout)
        self.weight = weight
        self.adversary = Adversary(2 * encoder.hidden_size, labels, **adversary)

    def outputs(self, batch: Batch) -> Any:
        """(logits_BL, pooled_BP) of a batch."""
        pooled_BP = self.pooled(batch.tokens)
        logits_BL = self.classifier(self.dropout(pooled_BP))
        return logits_BL.to(self.classifier.weight.dtype), pooled_BP

    def log_probs(self, outputs: Any) -> torch.Tensor:
        """As without an adversary."""
        return super().log_probs(outputs[0])

    def forward(self, batch: Batch) -> torch.Tensor:
        """The loss of each text; in training also that of a vector of its label, and those of the
        adversary: (B,)."""
        assert batch.labels_B is not None
        logits_BL, pooled_BP = self.outputs(batch)
        loss_B = nn.functional.cross_entropy(logits_BL, batch.labels_B, reduction="none")
        if not self.training:
            return loss_B
        made_BP, adversary_B = self.adversary(pooled_BP, batch.labels_B, batch.drawn)
        made_logits_BL = self.classifier(made_BP).to(loss_B.dtype)
        made_B = nn.functional.cross_entropy(made_logits_BL, batch.labels_B, reduction="none")
        return loss_B + self.weight * made_B + adversary_B


class ClosedFormModel(Model):
    """Whose classifier is computed: a `nlpkit.training.closed_form.ClosedFormModel`."""

    def __init__(self, encoder: Any, labels: int, shrinkage: float):
        super().__init__(encoder, labels, dropout=0.0)
        self.shrinkage = shrinkage

    def logits(self, tokens: TokenBatch) -> torch.Tensor:
        """logits_BL; the weights may be large, so that autocast would cost digits that count."""
        pooled_BP = self.pooled(tokens)
        with torch.autocast(pooled_BP.device.type, enabled=False):
            return self.classifier(pooled_BP)

    def new_sums(self) -> Sums:
        """The sums of no texts."""
        weight_LP = self.classifier.weight
        labels, features = weight_LP.shape
        return Sums.of_none(labels, features, weight_LP.device)

    def add(self, sums: Sums, batch: Batch) -> int:
        """Counts the texts of a batch in; returns how many they are."""
        assert batch.labels_B is not None
        sums.add(self.pooled(batch.tokens), batch.labels_B)
        return len(batch.labels_B)

    def solve(self, sums: Sums) -> None:
        """Sets the classifier."""
        weight_LP, bias_L = solve(sums, self.shrinkage)
        with torch.no_grad():
            self.classifier.weight.copy_(weight_LP)
            self.classifier.bias.copy_(bias_L)
