r"""GlobalPointer: a score for every pair of tokens and every head, and the exact multi-label loss
on the pairs.

Standard (one query and key for each head `p`) and efficient (one for all, plus a bias of each end):

    standard   s_p(i, j) = (R_i q_pi) . (R_j k_pj) / sqrt(d)
    efficient  s_p(i, j) = (R_i q_i) . (R_j k_j) / sqrt(d) + u_p(i) + v_p(j),   (u, v) = W [q; k]

with the rotary matrix R where the distance matters (spans), without it where it does not
(head-head, tail-tail). The loss of one text and head, over the gold pairs P and all other allowed
pairs N:

    log(1 + sum_P exp(-s)) + log(1 + sum_N exp(s))

is computed exactly, not as a difference of two sums that cancel. For the efficient scores, a head
without gold pairs in a text, which is nearly every head, needs no T x T tensor of its own:

    sum_ij exp(a_ij + u_i + v_j)
        = sum_i exp(u_i + max_j a_ij) * sum_j exp(a_ij - max_j a_ij) exp(v_j)

is one (T x T) @ (T x P) product for all heads of the text, done in float64, where |scores| up to
100 cannot underflow.

Source: https://kexue.fm/archives/8373 (pointer), /8877 (efficient), /7359 (loss), /8888 (sparse
labels).
Differs from /8888: no clipping of 1 - exp(b - a), which is wrong once a gold score dominates.
Differs from /8877: the halving of u and v is left to the weights; their biases start at
`initial_score / 2`.
Legend: B batch, T tokens, P heads (predicates, labels), R rows (text and head) that hold gold, N
pairs, D head size, M the pairs of a row and one more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

NEGATIVE_INFINITY = float("-inf")
CELLS_AT_ONCE = 1 << 19
"""Pairs of the rows that hold gold whose sums are taken together. The gradient needs some 24 bytes
for each of them for a moment, just when all activations are still there."""


@dataclass
class PairScores:
    """Scores s_p(i, j) = pair + start_p(i) + end_p(j). In the standard form `pair` has a head
    dimension and no ends."""

    pair: torch.Tensor  # (B, T, T) or (B, P, T, T)
    start_BTP: torch.Tensor | None
    end_BTP: torch.Tensor | None
    allowed_BTT: torch.Tensor  # bool

    @property
    def factorised(self) -> bool:
        """True in the efficient form."""
        return self.pair.dim() == 3

    @property
    def heads(self) -> int:
        """P, the number of heads: of scores that every pair has."""
        return self.pair.shape[1] if self.start_BTP is None else self.start_BTP.shape[2]

    def cells(self, b_N: torch.Tensor, i_N: torch.Tensor, j_N: torch.Tensor) -> torch.Tensor:
        """Scores of all heads at these (text, i, j), which must be allowed: (N, P)."""
        if self.start_BTP is None or self.end_BTP is None:
            return self.pair[b_N, :, i_N, j_N]
        return self.pair[b_N, i_N, j_N, None] + self.start_BTP[b_N, i_N] + self.end_BTP[b_N, j_N]

    def rows(self, b_R: torch.Tensor, p_R: torch.Tensor) -> torch.Tensor:
        """Scores of these (text, head), -inf where not allowed: (R, T, T)."""
        if self.start_BTP is None or self.end_BTP is None:
            scores_RTT = self.pair[b_R, p_R]
        else:
            start_RT, end_RT = self.start_BTP[b_R, :, p_R], self.end_BTP[b_R, :, p_R]
            scores_RTT = self.pair[b_R] + start_RT[:, :, None] + end_RT[:, None, :]
        return scores_RTT.masked_fill_(~self.allowed_BTT[b_R], NEGATIVE_INFINITY)

    def dense(self) -> torch.Tensor:
        """All scores, -inf where not allowed: (B, P, T, T)."""
        b_R, p_R = torch.meshgrid(
            torch.arange(len(self.pair), device=self.pair.device),
            torch.arange(self.heads, device=self.pair.device),
            indexing="ij",
        )
        return self.rows(b_R.flatten(), p_R.flatten()).unflatten(0, b_R.shape)

    def log_probs(self) -> torch.Tensor:
        """Of each pair and head, the log-probabilities that it is a gold one and that it is none,
        sigmoid(s) and sigmoid(-s): (B, P T T, 2). Pairs that are not allowed have those of s = 0."""
        scores_BPTT = self.dense().masked_fill(~self.allowed_BTT[:, None], 0)
        both_BPTT2 = torch.stack([scores_BPTT, -scores_BPTT], -1)
        return nn.functional.logsigmoid(both_BPTT2).flatten(1, 3)

    def log_one_plus_sum(self) -> torch.Tensor:
        """log(1 + sum of exp(score) over the allowed pairs): (B, P), float64."""
        if self.start_BTP is None or self.end_BTP is None:
            scores_BPTT = self.pair.masked_fill(~self.allowed_BTT[:, None], NEGATIVE_INFINITY)
            return log_one_plus_sum(scores_BPTT.flatten(2)).double()
        pair_BTT = self.pair.double().masked_fill(~self.allowed_BTT, NEGATIVE_INFINITY)
        live_BT1 = self.allowed_BTT.any(2, keepdim=True)
        top_BT1 = pair_BTT.detach().amax(2, keepdim=True).masked_fill(~live_BT1, 0.0)
        end_BTP = self.end_BTP.double()
        end_top_B1P = end_BTP.detach().amax(1, keepdim=True)
        sums_BTP = (pair_BTT - top_BT1).exp() @ (end_BTP - end_top_B1P).exp()
        tiny = torch.finfo(
            torch.float64
        ).tiny  # keeps the gradient of rows without an allowed pair finite
        logs_BTP = self.start_BTP.double() + top_BT1 + end_top_B1P + sums_BTP.clamp_min(tiny).log()
        return log_one_plus_sum(logs_BTP.masked_fill(~live_BT1, NEGATIVE_INFINITY).transpose(1, 2))


class GlobalPointer(nn.Module):
    """Scores of all pairs of tokens for a number of heads.

    Args:
        hidden_size: H of the hidden states.
        heads: P, the number of labels or predicates.
        head_size: D, even.
        efficient: one query and key for all heads (see the module docstring), else one for each.
        rotary: relative positions; needed for spans.
        ordered: only pairs with i <= j are allowed.
        initial_score: where the scores of an efficient pointer start. Nearly all of T * T pairs are
            negative: a start well below zero saves the steps that learn this (only the efficient
            form has the bias for it).
    """

    def __init__(
        self,
        hidden_size: int,
        heads: int,
        head_size: int = 64,
        *,
        efficient: bool = True,
        rotary: bool = True,
        ordered: bool = True,
        initial_score: float = 0.0,
    ):
        super().__init__()
        self.heads = heads
        self.head_size = head_size
        self.rotary = rotary
        self.ordered = ordered
        self.project = nn.Linear(hidden_size, 2 * head_size * (1 if efficient else heads))
        lecun_normal_(self.project)
        self.ends = nn.Linear(2 * head_size, 2 * heads) if efficient else None
        if self.ends is not None:
            lecun_normal_(self.ends)
            nn.init.constant_(self.ends.bias, initial_score / 2)

    def forward(self, hidden_BTH: torch.Tensor, content_BT: torch.Tensor) -> PairScores:
        """Scores as precise as the weights, also under autocast; pairs with a token outside
        `content_BT` are out."""
        projected = self.project(hidden_BTH)
        with torch.autocast(hidden_BTH.device.type, enabled=False):
            projected = projected.to(self.project.weight.dtype)
            allowed_BTT = content_BT[:, :, None] & content_BT[:, None, :]
            if self.ordered:
                allowed_BTT = allowed_BTT.triu()
            scale = 1 / math.sqrt(self.head_size)
            if self.ends is None:
                query, key = (
                    projected.unflatten(2, (self.heads, 2 * self.head_size))
                    .transpose(1, 2)
                    .chunk(2, -1)
                )
                return PairScores(self._dot(query, key) * scale, None, None, allowed_BTT)
            start_BTP, end_BTP = self.ends(projected).chunk(2, -1)
            return PairScores(
                self._dot(*projected.chunk(2, -1)) * scale, start_BTP, end_BTP, allowed_BTT
            )

    def _dot(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        if self.rotary:
            query, key = rotate(query), rotate(key)
        return query @ key.transpose(-1, -2)


def rotate(states: torch.Tensor, base: float = 10000.0) -> torch.Tensor:
    """Rotary position embedding of (..., T, D): components 2m and 2m+1 turn by t * base**(-2m /
    D)."""
    length, size = states.shape[-2:]
    rates = base ** (-torch.arange(0, size, 2, dtype=torch.float64, device=states.device) / size)
    angles = torch.arange(length, dtype=torch.float64, device=states.device)[:, None] * rates
    cos, sin = angles.cos().to(states.dtype), angles.sin().to(states.dtype)
    even, odd = states[..., 0::2], states[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def multilabel_loss(scores: PairScores, gold_N4: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The two terms of the exact loss of every text and head, of the gold pairs and of the others:
    (B, P), float64.

    `gold_N4` holds distinct (text, head, i, j) of allowed pairs; texts and heads may have any
    number, also none.
    """
    others_BP = scores.log_one_plus_sum()
    gold_BP = torch.zeros_like(others_BP)
    if len(gold_N4) == 0:
        return gold_BP, others_BP
    key_N, order_N = (gold_N4[:, 0] * scores.heads + gold_N4[:, 1]).sort(stable=True)
    i_N, j_N = gold_N4[order_N, 2:].unbind(1)
    key_R, row_N, count_R = torch.unique_consecutive(key_N, return_inverse=True, return_counts=True)
    at_once = max(1, CELLS_AT_ONCE // scores.allowed_BTT[0].numel())
    counts = [int(count_r.sum()) for count_r in count_R.split(at_once)]
    cells_N3 = torch.stack([row_N, i_N, j_N], 1)
    gold_parts = []
    others_parts = []
    pieces = zip(key_R.split(at_once), cells_N3.split(counts), strict=True)
    for number, (key_r, cells_n3) in enumerate(pieces):
        row_n, i_n, j_n = cells_n3.unbind(1)
        own_row_n = row_n - number * at_once
        gold_scores_n, others_r = _of_gold_rows(scores, key_r, own_row_n, i_n, j_n)
        gold_parts.append(gold_scores_n)
        others_parts.append(others_r)
    b_R = key_R // scores.heads
    p_R = key_R % scores.heads
    gold_R = _log_one_plus_sum_of_rows(-torch.cat(gold_parts), row_N, len(key_R))
    others_BP = others_BP.index_put((b_R, p_R), torch.cat(others_parts))
    return gold_BP.index_put((b_R, p_R), gold_R), others_BP


def _of_gold_rows(
    scores: PairScores,
    key_R: torch.Tensor,
    row_N: torch.Tensor,
    i_N: torch.Tensor,
    j_N: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scores of gold cells, (N,), and log(1 + sum of exp(score)) over all others of their rows,
    (R,), float64 both. A row's key is text * P + head; `row_N` counts in `key_R`."""
    scores_RTT = scores.rows(key_R // scores.heads, key_R % scores.heads)
    gold_scores_N = scores_RTT[row_N, i_N, j_N].double()
    rows, length, _ = scores_RTT.shape
    # Filled in place, since a copy would be the largest tensor of a training. The last place is the 1.
    others_RM = scores_RTT.new_zeros(rows, length * length + 1, dtype=torch.float64)
    others_RM[:, :-1] = scores_RTT.flatten(1)
    others_RM[row_N, i_N * length + j_N] = NEGATIVE_INFINITY
    return gold_scores_N, others_RM.logsumexp(1)


def overlap_loss(scores: PairScores, gold_N4: torch.Tensor) -> torch.Tensor:
    """The second term of `multilabel_loss` where gold spans may be missing: (B, P), float64.

    Only spans that share a token with a gold span of any head, but are none, count as others: a
    missing one would hardly overlap a known one.
    """
    b_N, _, i_N, j_N = gold_N4.unbind(1)
    one_N = torch.ones_like(b_N)
    gold_BTT = torch.zeros_like(scores.allowed_BTT).index_put((b_N, i_N, j_N), one_N.bool())
    steps_BT = one_N.new_zeros(
        len(gold_BTT), gold_BTT.shape[1] + 1
    )  # +1 where a gold span begins, -1 after its end
    steps_BT = steps_BT.index_put((b_N, i_N), one_N, accumulate=True).index_put(
        (b_N, j_N + 1), -one_N, accumulate=True
    )
    covered_BT = (steps_BT.cumsum(1)[:, :-1] > 0).long()
    until_BT = covered_BT.cumsum(1)  # covered tokens up to each, itself included
    overlaps_BTT = until_BT[:, None, :] > (until_BT - covered_BT)[:, :, None]
    others_BTT = overlaps_BTT & ~gold_BTT
    return log_one_plus_sum(
        scores.dense().double().masked_fill(~others_BTT[:, None], NEGATIVE_INFINITY).flatten(2)
    )


def log_one_plus_sum(values: torch.Tensor) -> torch.Tensor:
    """log(1 + sum of exp(value)) over the last dimension: (..., N) to (...,). The 1 keeps it and
    its gradient finite where all are -inf."""
    return torch.cat([values, values.new_zeros(*values.shape[:-1], 1)], -1).logsumexp(-1)


def _log_one_plus_sum_of_rows(
    values_N: torch.Tensor, row_N: torch.Tensor, rows: int
) -> torch.Tensor:
    """log(1 + sum of exp(value)) over the values of each row: (rows,)."""
    top_R = values_N.new_zeros(rows).scatter_reduce(
        0, row_N, values_N.detach(), "amax"
    )  # at least the anchor's 0
    sums_R = (-top_R).exp().scatter_add(0, row_N, (values_N - top_R[row_N]).exp())
    return top_R + sums_R.log()


def lecun_normal_(layer: nn.Linear) -> None:
    """Weights with variance 1 / fan-in, biases zero (https://kexue.fm/archives/8620)."""
    nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    nn.init.zeros_(layer.bias)
