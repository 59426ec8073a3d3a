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

Source: Kingma and Welling 2013, arxiv.org/abs/1312.6114; annealing: Bowman et al. 2015,
arxiv.org/abs/1511.06349; free bits: Kingma et al. 2016, arxiv.org/abs/1606.04934, section 3.3
(there of the mean over a batch, here of every text).
Legend: B batch, T tokens, H hidden, Z numbers of z, C numbers of the condition.
"""

from __future__ import annotations

import torch
from torch import nn


def divergence(mean_BZ: torch.Tensor, log_variance_BZ: torch.Tensor) -> torch.Tensor:
    """KL_BZ of the module docstring, in nats, for every number of z."""
    return (mean_BZ.square() + log_variance_BZ.exp() - 1 - log_variance_BZ) / 2


class Latent(nn.Module):
    """The posterior, and what z adds to the condition. `free` is in nats, `annealing` in
    examples."""

    def __init__(self, hidden_size: int, numbers: int, size: int, free: float, annealing: int):
        super().__init__()
        self.posterior = nn.Linear(hidden_size, 2 * numbers)
        self.project = nn.Linear(numbers, size, bias=False)
        self.free = free
        self.annealing = annealing
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def infer(
        self, hidden_BTH: torch.Tensor, mask_BT: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean_BZ, log_variance_BZ) of texts."""
        mask_BT1 = mask_BT[..., None].float()
        pooled_BH = (hidden_BTH.float() * mask_BT1).sum(1) / mask_BT1.sum(1)
        mean_BZ, log_variance_BZ = self.posterior(pooled_BH).float().chunk(2, 1)
        return mean_BZ, log_variance_BZ

    def draw(self, mean_BZ: torch.Tensor, log_variance_BZ: torch.Tensor) -> torch.Tensor:
        """z_BZ: drawn in training, elsewhere the mean."""
        if not self.training:
            return mean_BZ
        return mean_BZ + (log_variance_BZ / 2).exp() * torch.randn_like(mean_BZ)

    def count_examples(self, examples: int) -> None:
        """The trainer calls this after a step: so many examples were seen, over all processes."""
        self.seen += examples

    def cost(self, mean_BZ: torch.Tensor, log_variance_BZ: torch.Tensor) -> torch.Tensor:
        """What z adds to the loss: (B,), in nats. In training it is annealed."""
        kl_BZ = divergence(mean_BZ, log_variance_BZ)
        if not self.training:
            return kl_BZ.sum(1)
        weight = (self.seen / max(1, self.annealing)).clamp(max=1.0)
        return weight * kl_BZ.clamp_min(self.free).sum(1)
