"""Copying: the next token is one of the vocabulary, or one that a place of the passage holds.

    p(v) = (1 - c) p_vocabulary(v) + c sum_s a_s [token_s = v]
    a = softmax_s(q . h_s / sqrt(H))      c = sigmoid(w . h + b)

h is the vector that predicts, q = W h, and h_s are the passage's own vectors. So an answer need not
be spelled out of a whole vocabulary: it can be pointed at, token by token.

Source: See et al. 2017, Get to the point, arxiv.org/abs/1704.04368, equations 8 and 9.
Differs from it: dot products of the encoder's own vectors in place of an additive attention.
Legend: R rows, L positions that predict, S places of the source, N = positions of all rows, V
vocabulary, H hidden.
"""

from __future__ import annotations

import math

import torch
from torch import nn

SMALLEST = torch.finfo(torch.float32).tiny
LOWEST = torch.finfo(torch.float32).min


class CopyHead(nn.Module):
    """The attention and the gate."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.query = nn.Linear(hidden_size, hidden_size)
        self.gate = nn.Linear(hidden_size, 1)

    def scores(
        self, hidden_RLH: torch.Tensor, source_RSH: torch.Tensor, copied_RS: torch.Tensor
    ) -> torch.Tensor:
        """score_RLS of copying from each place, in float32; `copied_RS` says which places may be
        copied from, the others have LOWEST."""
        query_RLH = self.query(hidden_RLH) / math.sqrt(hidden_RLH.shape[-1])
        score_RLS = (query_RLH @ source_RSH.transpose(1, 2)).float()
        return score_RLS.masked_fill(~copied_RS[:, None], LOWEST)

    def log_probs(
        self,
        logits_NV: torch.Tensor,
        hidden_NH: torch.Tensor,
        score_NS: torch.Tensor,
        token_ids_NS: torch.Tensor,
    ) -> torch.Tensor:
        """log p_NV in float32; all may have more than one leading dimension. Where there is
        nothing to copy from, nothing is copied."""
        can_copy_N1 = (score_NS > LOWEST).any(-1, keepdim=True)
        copies_N1 = self.gate(hidden_NH).float().sigmoid() * can_copy_N1
        p_NV = logits_NV.float().softmax(-1) * (1 - copies_N1)
        p_NV = p_NV.scatter_add(-1, token_ids_NS, score_NS.softmax(-1) * copies_N1)
        return p_NV.clamp_min(SMALLEST).log()
