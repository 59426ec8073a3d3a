r"""How well an entity's description fits a mention in its text: each side looks at the other, token
by token.

The encoder reads text and description apart, so that a description is read once however many texts
name its entity. With projections q_t of the text, k_s of the description, and [t = s] where both
are the same token of the vocabulary:

    e_ts = q_t . k_s / sqrt(D) + w [t = s]
    y_t  = relu(A [q_t; c_t; q_t * c_t; shared_t]),   c_t = sum_s softmax_s(e_ts) k_s
    z_s  the other way round
    fit  = MLP([max_t y_t; max_s z_s; mention; prior])

`shared` says whether a token stands on the other side too, alone and with a neighbour: what a
question asks for is often a predicate that no training text had. The mention's own tokens are left
out of the text's side; their mean comes in as `mention`. NIL has the fit 0.

Source: https://kexue.fm/archives/6919 (two cross-attentions, max pooling, features of shared
characters and words).
Differs from it: one head each way; shared neighbours in place of shared words; the bonus w; NIL.
Legend: N pairs, T tokens of the text, S of the description, H hidden, D size, F features of the
prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from nlpkit.layers.steady_products import weighted_sums

SHARED = 2  # alone, and with a neighbour


@dataclass(frozen=True)
class Side:
    """One side of N pairs: projected states, token ids, which tokens are looked at, which are no
    special ones."""

    states_NTD: torch.Tensor
    token_ids_NT: torch.Tensor
    mask_NT: torch.Tensor
    content_NT: torch.Tensor

    def rows(self, rows_N: torch.Tensor) -> Side:
        """Some rows, in any order."""
        return Side(*(part[rows_N] for part in vars(self).values()))


class Matcher(nn.Module):
    """See the module docstring. `prior_size` is F."""

    def __init__(self, hidden_size: int, size: int, prior_size: int):
        super().__init__()
        self.size = size
        self.query, self.key, self.mention = (nn.Linear(hidden_size, size) for _ in range(3))
        self.text, self.description = (nn.Linear(3 * size + SHARED, size) for _ in range(2))
        self.same = nn.Parameter(torch.tensor(2.0))
        self.fit = nn.Sequential(
            nn.Linear(3 * size + prior_size, size), nn.ReLU(), nn.Linear(size, 1)
        )

    def forward(
        self, text: Side, description: Side, mention_NH: torch.Tensor, prior_NF: torch.Tensor
    ) -> torch.Tensor:
        """The fit of every pair: (N,)."""
        same_NTS = text.token_ids_NT[:, :, None] == description.token_ids_NT[:, None, :]
        same_NTS = same_NTS & text.content_NT[:, :, None] & description.content_NT[:, None, :]
        score_NTS = text.states_NTD @ description.states_NTD.transpose(1, 2) / math.sqrt(self.size)
        score_NTS = score_NTS + self.same * same_NTS
        beside_NTS = has_neighbour(same_NTS)
        shared_NT2 = torch.stack([same_NTS.any(2), beside_NTS.any(2)], -1)
        shared_NS2 = torch.stack([same_NTS.any(1), beside_NTS.any(1)], -1)
        parts = (
            pooled(self.text, text, description, score_NTS, shared_NT2),
            pooled(self.description, description, text, score_NTS.transpose(1, 2), shared_NS2),
            self.mention(mention_NH),
            prior_NF,
        )
        return self.fit(torch.cat(parts, 1)).squeeze(1)


def has_neighbour(same_NTS: torch.Tensor) -> torch.Tensor:
    """Which pairs of equal tokens have a pair of equal tokens before or after them: (N, T, S)."""
    both_NTS = same_NTS[:, 1:, 1:] & same_NTS[:, :-1, :-1]
    before = nn.functional.pad(both_NTS, (1, 0, 1, 0))
    after = nn.functional.pad(both_NTS, (0, 1, 0, 1))
    return before | after


def pooled(
    layer: nn.Linear, own: Side, other: Side, score_NTS: torch.Tensor, shared_NT2: torch.Tensor
) -> torch.Tensor:
    """The most that any token of its own side sees on the other: (N, D)."""
    weight_NTS = score_NTS.masked_fill(~other.mask_NT[:, None, :], -torch.inf).softmax(2)
    seen_NTD = weighted_sums(weight_NTS, other.states_NTD)
    states_NTD = own.states_NTD
    shared_NT2 = shared_NT2.to(states_NTD.dtype)
    y_NTD = layer(torch.cat([states_NTD, seen_NTD, states_NTD * seen_NTD, shared_NT2], 2)).relu()
    return y_NTD.masked_fill(~own.mask_NT[:, :, None], 0.0).amax(1)
