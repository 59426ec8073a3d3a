r"""A latent vector of choices: of each of V variables one of K categories, drawn by Gumbel softmax.

    posterior   q(z_v = k | text) = softmax_k(o_vk), o linear in the mean of the hidden vectors
    training    z_v = softmax((o_v - log(-log u_v)) / temperature),    u ~ U(0, 1)
                elsewhere one-hot: z_v = onehot(argmax_k o_vk)
    KL_v        log K - entropy of q(z_v), of q and equal chances
    temperature start (end / start)^min(1, examples seen / annealing)

The argmax of o - log(-log u) is an exact draw from q; its softmax has a gradient, and comes near a
one-hot vector as the temperature falls. `nlpkit.layers.vae` has the loss, its annealing and the
variant with normal numbers.

Source: https://kexue.fm/archives/6705; Jang et al. 2016, arxiv.org/abs/1611.01144 (whose KL is that
of the categories too, not of what the softmax gives).
Legend: B batch, V variables, K categories, Z = V K numbers of z.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from nlpkit.layers.vae import AnnealedLatent


def gumbel_softmax(logits: torch.Tensor, gumbel: torch.Tensor, temperature: float) -> torch.Tensor:
    """A draw that has a gradient, over the last dimension; `gumbel` is the noise -log(-log u), of
    the shape of the logits."""
    return ((logits + gumbel) / temperature).softmax(-1)


class CategoricalLatent(AnnealedLatent):
    """`variables` choices of one of `categories` each; `start` and `end` are temperatures, the other
    arguments as in `AnnealedLatent`."""

    def __init__(
        self,
        hidden_size: int,
        variables: int,
        categories: int,
        size: int,
        free: float,
        annealing: int,
        start: float,
        end: float,
    ):
        numbers = variables * categories
        super().__init__(hidden_size, numbers, numbers, size, free, annealing)
        self.variables = variables
        self.categories = categories
        self.start = start
        self.end = end

    @property
    def temperature(self) -> float:
        """That of the next step."""
        share = min(1.0, int(self.seen) / self.annealing)
        return self.start * (self.end / self.start) ** share

    def infer(self, hidden_BTH: torch.Tensor, mask_BT: torch.Tensor) -> tuple[torch.Tensor]:
        """(log_probs_BVK,) of texts."""
        logits_BVK = self.told(hidden_BTH, mask_BT).unflatten(1, (self.variables, self.categories))
        return (logits_BVK.log_softmax(2),)

    def draw(self, log_probs_BVK: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """z_BZ: drawn in training, elsewhere the likeliest.

        `noise` is -log(-log u), (B, V, K); None: drawn here.
        """
        if not self.training:
            return self.mode(log_probs_BVK)
        if noise is None:
            noise = -torch.empty_like(log_probs_BVK).exponential_().log()
        return gumbel_softmax(log_probs_BVK, noise, self.temperature).flatten(1)

    def divergence(self, *posterior: torch.Tensor) -> torch.Tensor:
        """KL_BV of the posterior and equal chances, in nats."""
        (log_probs_BVK,) = posterior
        return (log_probs_BVK.exp() * log_probs_BVK).sum(2) + math.log(self.categories)

    def mode(self, log_probs_BVK: torch.Tensor) -> torch.Tensor:
        """The likeliest z_BZ."""
        return self._one_hot(log_probs_BVK.argmax(2)).to(log_probs_BVK.dtype)

    def opposite(self, z_BZ: torch.Tensor) -> torch.Tensor:
        """Another z for every one: of each variable the next category."""
        return z_BZ.unflatten(1, (self.variables, self.categories)).roll(1, 2).flatten(1)

    def from_prior(self, random: Any) -> torch.Tensor:
        """z_Z of a `numpy` generator."""
        chosen_V = torch.from_numpy(random.integers(self.categories, size=self.variables))
        return self._one_hot(chosen_V[None])[0].float()

    def between(self, first_Z: torch.Tensor, last_Z: torch.Tensor, share: float) -> torch.Tensor:
        """z_Z at a share of the way from one to another: so many of its variables have changed, in
        their order."""
        changed = round(share * self.variables) * self.categories
        return torch.cat([last_Z[:changed], first_Z[changed:]])

    def _one_hot(self, chosen_BV: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(chosen_BV, self.categories).flatten(1)
