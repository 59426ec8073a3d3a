r"""The losses of similarity. All take cosines, or vectors of length 1, and give a loss for each
example.

    am_softmax   -log e^(s (c_t - m)) / (e^(s (c_t - m)) + sum over j != t of e^(s c_j)),
                 c_j the cosine with the weights of group j, t the right one; m = 0: softmax
    contrastive  -log e^(<a_i, b_i> / T) / sum over j of e^(<a_i, b_j> / T), and the same from b to a
    cosent       log(1 + sum over grade_i > grade_j of e^((cos_j - cos_i) / T))

Source: https://kexue.fm/archives/5743 (am_softmax, its sparse form), /8847 (cosent; T = 1/20 there);
Gao et al. 2021, arxiv.org/abs/2104.08821, equation 1 (contrastive).
Legend: B examples, C groups, H size of a vector.
"""

from __future__ import annotations

import torch
from torch import nn


def am_softmax(
    cosine_BC: torch.Tensor, group_B: torch.Tensor, margin: float, scale: float
) -> torch.Tensor:
    """(B,). In its sparse form: the right cosine by its number, and one logsumexp; no vectors of
    zeros and a one."""
    right_B1 = cosine_BC.gather(1, group_B[:, None]) - margin
    all_BC = cosine_BC.scatter(1, group_B[:, None], right_B1)
    return (scale * all_BC).logsumexp(1) - scale * right_B1[:, 0]


def contrastive(
    a_BH: torch.Tensor,
    b_BH: torch.Tensor,
    keys_B2: torch.Tensor,
    is_alike_B: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """(B,), the mean of both directions; 0 for a pair that is not alike, which is only a wrong
    answer to the others.

    `keys_B2` name the two texts, or their group: what has an equal key is no wrong answer.
    """
    logits_BB = a_BH @ b_BH.T / temperature
    same_BB = (keys_B2[:, None, :, None] == keys_B2[None, :, None, :]).flatten(2).any(2)
    same_BB.fill_diagonal_(False)
    logits_BB = logits_BB.masked_fill(same_BB, -torch.inf)
    right_B = torch.arange(len(a_BH), device=a_BH.device)
    there_B = nn.functional.cross_entropy(logits_BB, right_B, reduction="none")
    back_B = nn.functional.cross_entropy(logits_BB.T, right_B, reduction="none")
    return (there_B + back_B) / 2 * is_alike_B


def cosent(cosine_B: torch.Tensor, grade_B: torch.Tensor, temperature: float) -> torch.Tensor:
    """(B,), the one loss of all pairs at each of them; 0 where all grades are equal."""
    difference_BB = (cosine_B[None, :] - cosine_B[:, None]) / temperature
    is_above_BB = grade_B[:, None] > grade_B[None, :]
    wrong_N = difference_BB[is_above_BB]
    terms_N = torch.cat([wrong_N, cosine_B.sum()[None] * 0])  # e^0 is the 1
    return terms_N.logsumexp(0).expand(len(cosine_B))
