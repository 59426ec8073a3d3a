r"""Performer: attention whose time and memory grow with the length of a text, not with its square.

    exp(q . k) = E[phi(q) . phi(k)],   phi(x) = exp(w_m . x - |x|^2 / 2) / sqrt(M),   w_m ~ N(0, I)
    context    = phi(Q) (phi(K)^T [V, 1]), all but its last number divided by the last

with q and k both scaled by D^(-1/4). The w are orthogonal in blocks of D, each with the length of a
Gaussian vector: each is N(0, I) still, and together they miss less. The largest exponent is
subtracted first, of a query by itself and of all keys together: both cancel.

It estimates softmax attention; the error falls with 1 / sqrt(M), and grows fast with |q| and |k|.
A key is seen by all queries or by none: there is no prefix and no causal mask. Weights that are
never computed have no dropout.

The w are kept with the weights, so that a checkpoint is the same function wherever it is loaded.
With `redraw` they are drawn anew every so many steps of training, of a seed that is kept as well.

Source: Choromanski et al. 2020, arxiv.org/abs/2009.14794, lemma 1 and section 2.4;
https://kexue.fm/archives/7921.
Legend: B batch, A attention heads, T tokens (Q as queries, K as keys), M features, D size of a head.
"""

from __future__ import annotations

import torch
from torch import nn

from nlpkit.errors import SettingsError
from nlpkit.layers.steady_products import is_traced, spare, weighted_sums

TINY = 1e-30
"""No denominator is less."""


class Performer(nn.Module):
    """What queries read, by M random features; all heads of a layer share them.

    `redraw` is in steps of training; 0 keeps the features as they are.
    """

    def __init__(self, head_size: int, features: int, redraw: int = 0):
        super().__init__()
        self.redraw = redraw
        self.feature_MD: torch.Tensor
        self.drawn: torch.Tensor
        seed = torch.randint(2**31, (1,), device="cpu")
        self.register_buffer("drawn", torch.cat([seed, torch.zeros_like(seed)]))  # seed, steps
        self.register_buffer("feature_MD", torch.empty(features, head_size))
        self.draw()

    @torch.no_grad()
    def draw(self) -> None:
        """Draws the features, by the seed and the number of steps until now."""
        seed, steps = self.drawn.tolist()
        generator = torch.Generator("cpu").manual_seed(seed + steps)
        features, size = self.feature_MD.shape
        self.feature_MD.copy_(orthogonal_features(features, size, generator))

    def count_examples(self, examples: int) -> None:
        """The trainer calls this after a step, whatever the number of its examples."""
        self.drawn[1] += 1
        if self.redraw and int(self.drawn[1]) % self.redraw == 0:
            self.draw()

    def forward(
        self,
        query_BAQD: torch.Tensor,
        key_BAKD: torch.Tensor,
        value_BAKD: torch.Tensor,
        mask_B1QK: torch.Tensor,
    ) -> torch.Tensor:
        """context_BAQD, in the type of the values; `mask_B1QK` is an `additive_mask`, the same for
        all queries: Q is 1 there.

        In evaluation mode on a CPU a row depends neither on its neighbours nor on padding. Raises
        SettingsError for a mask that differs between queries.
        """
        if mask_B1QK.shape[2] != 1:
            raise SettingsError("encoder: Performer attention has no mask that differs by query")
        wide = torch.promote_types(self.feature_MD.dtype, torch.float32)
        queries = query_BAQD.shape[2]
        is_hidden_B1K1 = mask_B1QK[:, :, 0, :, None] < 0
        value_BAKE = nn.functional.pad(value_BAKD.to(wide), (0, 1), value=1.0)
        if not self.training and query_BAQD.device.type == "cpu" and not is_traced():
            query_BAQD = nn.functional.pad(query_BAQD, (0, 0, 0, spare(queries)))
            more = (0, 0, 0, spare(key_BAKD.shape[2]))
            key_BAKD = nn.functional.pad(key_BAKD, more)
            value_BAKE = nn.functional.pad(value_BAKE, more)
            is_hidden_B1K1 = nn.functional.pad(is_hidden_B1K1, more, value=True)
        with torch.autocast(query_BAQD.device.type, enabled=False):
            exponent_BAQM = self._exponents(query_BAQD.to(wide))
            most_BAQ1 = exponent_BAQM.amax(-1, keepdim=True).detach()
            query_BAQM = torch.exp(exponent_BAQM - most_BAQ1)
            exponent_BAKM = self._exponents(key_BAKD.to(wide)).masked_fill(
                is_hidden_B1K1, float("-inf")
            )
            most_BA11 = exponent_BAKM.amax((-2, -1), keepdim=True).detach()
            key_BAKM = torch.exp(exponent_BAKM - most_BA11.clamp_min(-1 / TINY))
            sum_BAME = weighted_sums(key_BAKM.transpose(2, 3), value_BAKE)
            context_BAQE = (query_BAQM @ sum_BAME)[:, :, :queries]
            context_BAQD = context_BAQE[..., :-1] / context_BAQE[..., -1:].clamp_min(TINY)
        return context_BAQD.to(value_BAKD.dtype)

    def _exponents(self, vector_BATD: torch.Tensor) -> torch.Tensor:
        """w . x - |x|^2 / 2 of the scaled vectors: (B, A, T, M)."""
        scaled_BATD = vector_BATD * vector_BATD.shape[-1] ** -0.25
        half_BAT1 = scaled_BATD.square().sum(-1, keepdim=True) / 2
        return scaled_BATD @ self.feature_MD.t().to(scaled_BATD.dtype) - half_BAT1


def orthogonal_features(features: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """w_MD of float64: rows that are N(0, I) each, and orthogonal within every `size` of them."""
    blocks = []
    for _ in range(0, features, size):
        gaussian_DD = torch.randn(
            size, size, generator=generator, dtype=torch.float64, device="cpu"
        )
        direction_DD, upper_DD = torch.linalg.qr(gaussian_DD)
        # by the signs every direction is equally likely
        direction_DD = direction_DD * upper_DD.diagonal().sign()
        other_DD = torch.randn(size, size, generator=generator, dtype=torch.float64, device="cpu")
        blocks.append(direction_DD.t() * other_DD.norm(dim=1, keepdim=True))
    return torch.cat(blocks)[:features]
