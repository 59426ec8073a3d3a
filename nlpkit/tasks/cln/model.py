"""A language model under a condition: its batches and the model itself.

    loss = - sum_t log p(token_t | tokens before it, condition)        in nats, the end included

Legend: B batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from nlpkit.encoders.base import encode
from nlpkit.layers.cached_decoder import CachedDecoder
from nlpkit.layers.conditional_norm import condition_norms
from nlpkit.layers.gumbel import CategoricalLatent
from nlpkit.layers.prefix_lm import PrefixBatch, PrefixLM
from nlpkit.layers.vae import Latent
from nlpkit.tasks.cln.conditions import ConditionSpace, ConditionVectors
from nlpkit.tasks.cln.examples import Example
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import TokenBatch


@dataclass(frozen=True)
class Batch(TensorFields):
    """Conditions as tensors; `pairs`, `texts` and the wrong conditions are for what is known of the
    gold, `noise` for the draw of latent vectors (None: the model draws it)."""

    examples: list[Example]
    sources: TokenBatch
    condition: torch.Tensor
    wrong: torch.Tensor | None = None
    pairs: PrefixBatch | None = None
    texts: TokenBatch | None = None
    noise: torch.Tensor | None = None


class Model(PrefixLM):
    """A prefix language model whose norms are moved by a condition, and, with `latent`, by a vector
    of the text."""

    def __init__(
        self,
        encoder: Any,
        space: ConditionSpace,
        size: int,
        latent: Latent | CategoricalLatent | None = None,
    ):
        super().__init__(encoder)
        self.vectors = ConditionVectors(space, size)
        self.latent = latent
        self.norms = condition_norms(encoder.model, size)

    def forward(self, batch: Batch) -> torch.Tensor:  # type: ignore[override]  # with a condition
        """loss_B of the texts, in nats."""
        if self.latent is None:
            return self._nats(batch, self.seen(batch.condition))
        posterior = self.posterior(batch.texts)
        latent: Any = self.latent  # the posterior has what its `draw` takes
        z_BZ = latent.draw(*posterior, noise=batch.noise)
        return self._nats(batch, self.seen(batch.condition, z_BZ)) + self.latent.cost(*posterior)

    def judge(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """-log p of the texts under the right and under the wrong condition, an opposite z with it:
        (B,) each.

        With `latent` z is the likeliest of the posterior, and its KL is added.
        """
        assert batch.wrong is not None
        if self.latent is None:
            right_B = self._nats(batch, self.seen(batch.condition))
            wrong_B = self._nats(batch, self.seen(batch.wrong))
            return right_B, wrong_B
        posterior = self.posterior(batch.texts)
        kl_B = self.latent.divergence(*posterior).sum(1)
        z_BZ = self.latent.mode(*posterior)
        right_B = self._nats(batch, self.seen(batch.condition, z_BZ))
        wrong_B = self._nats(batch, self.seen(batch.wrong, self.latent.opposite(z_BZ)))
        return right_B + kl_B, wrong_B + kl_B

    def seen(self, condition: torch.Tensor, z_BZ: torch.Tensor | None = None) -> torch.Tensor:
        """condition_BC, what the norms see of the condition and of z."""
        condition_BC = self.vectors(condition)
        if self.latent is None or z_BZ is None:
            return condition_BC
        return condition_BC + self.latent.project(z_BZ)

    def posterior(self, texts: TokenBatch | None) -> tuple[torch.Tensor, ...]:
        """What `infer` of `latent` gives for texts, which the encoder reads as it is without a
        condition."""
        assert self.latent is not None
        assert texts is not None
        return self.latent.infer(encode(self.encoder, texts), texts.mask_BT)

    def _nats(self, batch: Batch, condition_BC: torch.Tensor) -> torch.Tensor:
        assert batch.pairs is not None
        with self.norms.given(condition_BC):
            return super().forward(batch.pairs)


class ConditionedDecoder(CachedDecoder):
    """`CachedDecoder` of a model whose norms see condition_BC, a row for every source."""

    packs = False

    def __init__(self, model: Model, sources: TokenBatch, condition_BC: torch.Tensor):
        super().__init__(model.encoder, sources)
        self.norms = model.norms
        self.condition_BC = condition_BC

    def first(self) -> torch.Tensor:
        """logits_BV of the first token."""
        self.condition_RC = self.condition_BC
        with self.norms.given(self.condition_RC):
            return super().first()

    def _extend(self, token_RK: torch.Tensor, beam_RK: torch.Tensor) -> torch.Tensor:
        with self.norms.given(self.condition_RC):
            return super()._extend(token_RK, beam_RK)

    def _keep(self, row_N: torch.Tensor) -> None:
        super()._keep(row_N)
        self.condition_RC = self.condition_RC[row_N]
