r"""The variational information bottleneck: features that pass no more than a layer above needs.

    q(z | x) = N(mean, exp(log_variance)), both linear in the features
    training    z = mean + exp(log_variance / 2) noise,    noise ~ N(0, 1);    elsewhere z = mean
    KL          sum_i (mean_i^2 + exp(log_variance_i) - 1 - log_variance_i) / 2

of q and N(0, 1), in nats: an upper bound of what z tells of x. The loss of an example has `beta` KL
added. The noise of an example with gold comes from a number of its own, so that it is the same however a
batch is cut, and in both passes of R-Drop.

Source: https://kexue.fm/archives/6181; Alemi et al. 2016, arxiv.org/abs/1612.00410.
Legend: B examples, D features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from nlpkit.layers.vae import divergence


class Bottleneck(nn.Module):
    """From features to as many numbers."""

    def __init__(self, size: int):
        super().__init__()
        self.posterior = nn.Linear(size, 2 * size)

    def forward(
        self, features_BD: torch.Tensor, seed_B: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(z_BD, KL_B) in the type of the weights, also under autocast: a variance is an
        exponential. In training `seed_B` (int64, at least 0) are what the noise is drawn from; None
        draws it from torch's generator."""
        features_BD = features_BD.to(self.posterior.weight.dtype)
        with torch.autocast(features_BD.device.type, enabled=False):
            mean_BD, log_variance_BD = self.posterior(features_BD).chunk(2, 1)
            kl_B = divergence(mean_BD, log_variance_BD).sum(1)
            if not self.training:
                return mean_BD, kl_B
            noise_BD = torch.randn_like(mean_BD) if seed_B is None else noise_of(seed_B, mean_BD)
            return mean_BD + (log_variance_BD / 2).exp() * noise_BD, kl_B


def noise_of(seed_B: torch.Tensor, like_BD: torch.Tensor) -> torch.Tensor:
    """Standard normal numbers in the shape, type and place of `like_BD`, each row by its seed."""
    size = like_BD.shape[1]
    rows = [np.random.default_rng(seed).standard_normal(size) for seed in seed_B.tolist()]
    return torch.from_numpy(np.stack(rows)).to(like_BD)
