r"""A latent vector of a text, learned by a variational autoencoder: what a text is like beyond its
labels.

    posterior   q(z | text) = N(mean, exp(log_variance)), both linear in the mean of the encoder's
                hidden vectors
    training    z = mean + exp(log_variance / 2) noise,    noise ~ N(0, 1);    elsewhere z = mean
    KL_i        (mean_i^2 + exp(log_variance_i) - 1 - log_variance_i) / 2
                of q and N(0, 1), for number i
    loss        -log p(text | z) + w sum_i max(KL_i, free),  w = min(1, examples seen / annealing)

Annealing lets the decoder find a use for z before z costs anything, and what a number may tell for
nothing keeps it from being given up. The trainer says after every step how many examples all
processes took in, so that w is the same for the whole step, however its batch was cut.

`nlpkit.layers.gumbel` has the variant whose z is a choice among categories.

Source: Kingma and Welling 2013, arxiv.org/abs/1312.6114; annealing: Bowman et al. 2015,
arxiv.org/abs/1511.06349; free bits: Kingma et al. 2016, arxiv.org/abs/1606.04934, section 3.3
(there of the mean over a batch, here of every text).
Legend: B batch, T tokens, H hidden, Z numbers of z, V variables (Z, but for categories), C numbers of
the condition.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def divergence(mean_BZ: torch.Tensor, log_variance_BZ: torch.Tensor) -> torch.Tensor:
    """KL_BZ of the module docstring, in nats, for every number of z."""
    return (mean_BZ.square() + log_variance_BZ.exp() - 1 - log_variance_BZ) / 2


class AnnealedLatent(nn.Module):
    """What all latent vectors share: how the posterior sees a text, what z adds to the condition,
    and how its cost is annealed.

    Args:
        hidden_size: of the encoder.
        told: numbers of the posterior.
        drawn: numbers of z.
        size: numbers of the condition.
        free: nats that a variable tells at no cost.
        annealing: examples over which the cost rises to the whole.
    """

    def __init__(
        self, hidden_size: int, told: int, drawn: int, size: int, free: float, annealing: int
    ):
        super().__init__()
        self.posterior = nn.Linear(hidden_size, told)
        self.project = nn.Linear(drawn, size, bias=False)
        self.free = free
        self.annealing = annealing
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def told(self, hidden_BTH: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """What the posterior says of texts, float32: (B, `told`)."""
        mask_BT1 = mask_BT[..., None].float()
        pooled_BH = (hidden_BTH.float() * mask_BT1).sum(1) / mask_BT1.sum(1)
        return self.posterior(pooled_BH).float()

    def count_examples(self, examples: int) -> None:
        """The trainer calls this after a step: so many examples were seen, over all processes."""
        self.seen += examples

    def divergence(self, *posterior: torch.Tensor) -> torch.Tensor:
        """KL_BV of the posterior that `infer` gave and the prior, in nats."""
        raise NotImplementedError

    def cost(self, *posterior: torch.Tensor) -> torch.Tensor:
        """What z adds to the loss: (B,), in nats. In training it is annealed."""
        kl_BV = self.divergence(*posterior)
        if not self.training:
            return kl_BV.sum(1)
        weight = (self.seen / max(1, self.annealing)).clamp(max=1.0)
        return weight * kl_BV.clamp_min(self.free).sum(1)


class Latent(AnnealedLatent):
    """A z of normally distributed numbers."""

    def __init__(self, hidden_size: int, numbers: int, size: int, free: float, annealing: int):
        super().__init__(hidden_size, 2 * numbers, numbers, size, free, annealing)
        self.numbers = numbers

    def infer(
        self, hidden_BTH: torch.Tensor, mask_BT: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean_BZ, log_variance_BZ) of texts."""
        mean_BZ, log_variance_BZ = self.told(hidden_BTH, mask_BT).chunk(2, 1)
        return mean_BZ, log_variance_BZ

    def draw(
        self,
        mean_BZ: torch.Tensor,
        log_variance_BZ: torch.Tensor,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """z_BZ: drawn in training, elsewhere the mean. `noise`: (B, Z), N(0, 1);
        None: drawn here."""
        if not self.training:
            return mean_BZ
        noise_BZ = torch.randn_like(mean_BZ) if noise is None else noise
        return mean_BZ + (log_variance_BZ / 2).exp() * noise_BZ

    def divergence(self, *posterior: torch.Tensor) -> torch.Tensor:
        """`divergence` of the posterior."""
        return divergence(*posterior)

    def mode(self, mean_BZ: torch.Tensor, log_variance_BZ: torch.Tensor) -> torch.Tensor:
        """The likeliest z_BZ: the mean."""
        return mean_BZ

    def opposite(self, z_BZ: torch.Tensor) -> torch.Tensor:
        """Another z for every one: mirrored at the prior's mean."""
        return -z_BZ

    def from_prior(self, random: Any) -> torch.Tensor:
        """z_Z of a `numpy` generator."""
        return torch.from_numpy(random.standard_normal(self.numbers)).float()

    def between(self, first_Z: torch.Tensor, last_Z: torch.Tensor, share: float) -> torch.Tensor:
        """z_Z at a share of the way from one to another."""
        return torch.lerp(first_Z, last_Z, share)
