"""One step of a search in a table of tries: which tokens are legal for each beam, and the best of
them for each row.

A continuation of a beam is a child of its node, or its end. The continuations of all beams lie in
one list. So a node with two children costs two numbers, however many its neighbours have, and
nothing is as long as V:

    continuations (M)    beam, token, child -> logit = logits[beam, token] -> score
    side by side (B, W)  those of each row -> the best `count`

A continuation of beam k scores score_k + logit - log Z_k, where Z_k sums exp(logit) over the
vocabulary (`full`) or over the continuations of the beam (`renorm`). Where that is not finite (NaN
or inf among its logits, or all -inf) the beam has no continuations.

The list is `ragged`, which asks the device for its length, or `fixed`: for each row as long as that
of any row can be. This asks nothing, so that the host never waits and the shapes are always the
same.

Source: https://arxiv.org/abs/2602.22647 (gathering the children of a CSR trie instead of masking
the vocabulary).
Differs from it: no padding to the widest node of a level, exact ends, any lengths, several tries.
Legend: B rows, K beams, N = B * K, V vocabulary, M continuations, W continuations of a row, E ends,
C candidates.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from nlpkit.decoding.best import NEGATIVE_INFINITY, first_best
from nlpkit.decoding.constraint import Candidates

ROWS_AT_ONCE = 16  # logits normalised together on a CPU: their log-probabilities fit its cache


class Nodes(NamedTuple):
    """Where the N beams stand; dead ones have no children and no end."""

    state_N: torch.Tensor
    first_N: torch.Tensor
    """The first child, int32."""
    fan_N: torch.Tensor
    """The number of children, int32."""
    is_end_N: torch.Tensor


class Continuations(NamedTuple):
    """All legal continuations."""

    beam_M: torch.Tensor
    """Which of the N beams it continues, int32."""
    child_M: torch.Tensor
    """The node it leads to, int32; for an end that of the beam."""
    token_M: torch.Tensor
    begin_B: torch.Tensor
    """The first continuation of each row."""
    width: int
    """The most continuations of a row."""
    counts: list[int] | None = None
    """The continuations of each row; None: `width`, of which not all are valid."""
    is_valid_M: torch.Tensor | None = None


def ragged(nodes: Nodes, rows: int, label: torch.Tensor, eos_id: int) -> Continuations:
    """As many continuations as there are, on any device: arrays (M,), M known to the host.

    Args:
        nodes: of N beams, those of a row side by side.
        rows: B, of which each has N / B beams.
        label: the token that leads to each node of the trie.
    """
    size_N = nodes.fan_N + nodes.is_end_N
    count_B = size_N.view(rows, -1).sum(1)
    counts = count_B.tolist()
    after_N = size_N.cumsum(0, dtype=torch.int32)
    beam_N = torch.arange(len(size_N), dtype=torch.int32, device=size_N.device)
    beam_M = beam_N.repeat_interleave(size_N, output_size=sum(counts))
    child_M = (nodes.first_N - (after_N - size_N)).index_select(0, beam_M)
    child_M += torch.arange(len(beam_M), dtype=torch.int32, device=beam_M.device)
    token_M = label.index_select(0, child_M)
    ending_E = nodes.is_end_N.nonzero()[:, 0]
    last_E = after_N.index_select(0, ending_E).long() - 1  # the last of a beam is its end
    child_M[last_E] = nodes.state_N.index_select(0, ending_E).int()
    token_M[last_E] = eos_id
    return Continuations(beam_M, child_M, token_M, count_B.cumsum(0) - count_B, max(counts), counts)


def fixed(nodes: Nodes, rows: int, label: torch.Tensor, eos_id: int, width: int) -> Continuations:
    """Arrays (rows * width,): `width` places for each row, which must not have more; nothing is
    asked of the device. Arguments are those of `ragged`; `label` is (nodes,)."""
    beams = len(nodes.fan_N) // rows
    device = label.device
    size_N = nodes.fan_N + nodes.is_end_N
    after_BK = size_N.view(rows, beams).cumsum(1, dtype=torch.int32)
    torch._assert_async(
        (after_BK[:, -1] <= width).all(), "beams of a row share a node, or differ in depth"
    )
    row_B1 = torch.arange(rows, dtype=torch.int32, device=device)[:, None]
    place_BW = torch.arange(width, dtype=torch.int32, device=device).expand(rows, -1).contiguous()
    found_BW = torch.searchsorted(after_BK, place_BW, right=True, out_int32=True)
    is_valid_M = (found_BW < beams).flatten()
    beam_M = (found_BW.clamp_max_(beams - 1) + row_B1 * beams).flatten()
    place_M = place_BW.flatten() - (after_BK.flatten() - size_N).index_select(0, beam_M)
    is_end_M = place_M == nodes.fan_N.index_select(0, beam_M)
    child_M = torch.where(
        is_valid_M & ~is_end_M, nodes.first_N.index_select(0, beam_M) + place_M, 0
    )
    token_M = label.index_select(0, child_M).masked_fill_(is_end_M, eos_id)
    child_M = torch.where(is_end_M, nodes.state_N.index_select(0, beam_M).int(), child_M)
    return Continuations(beam_M, child_M, token_M, row_B1[:, 0] * width, width, None, is_valid_M)


def top_candidates(
    found: Continuations,
    logits_NV: torch.Tensor,
    score_BK: torch.Tensor,
    log_total_N: torch.Tensor | None,
    count: int,
) -> Candidates:
    """The best `count` continuations of every row; `log_total_N` is the log Z of `full`, None asks
    for `renorm`."""
    logit_M = logits_of(found, logits_NV)
    if log_total_N is None:
        log_total_N = log_sums(logit_M, found.beam_M, len(logits_NV))
    return ranked(found, logit_M, score_BK, log_total_N, count)


def logits_of(found: Continuations, logits_NV: torch.Tensor) -> torch.Tensor:
    """The logits of the continuations, float32, -inf for those that are not valid: (M,)."""
    logit_M = logits_NV.reshape(-1).index_select(0, places(logits_NV, found)).float()
    if found.is_valid_M is None:
        return logit_M
    return logit_M.masked_fill_(~found.is_valid_M, NEGATIVE_INFINITY)


def ranked(
    found: Continuations,
    score_M: torch.Tensor,
    score_BK: torch.Tensor,
    log_total_N: torch.Tensor,
    count: int,
) -> Candidates:
    """The best `count` continuations of every row; number m of beam k scores score_k + score_m -
    log Z_k. `score_M` is overwritten."""
    base_N = _or_dead(score_BK.flatten() - log_total_N)
    score_M += base_N.index_select(0, found.beam_M)
    score_BC, place_BC, is_dead_BC = _best_places(_side_by_side(score_M, found), count)
    if not len(found.beam_M):
        nothing_BC = torch.full_like(place_BC, -1)
        return Candidates(score_BC, torch.zeros_like(place_BC), nothing_BC, nothing_BC)
    chosen_BC = (found.begin_B[:, None] + place_BC).masked_fill_(is_dead_BC, 0)
    beam_BC = (found.beam_M[chosen_BC].long() % score_BK.shape[1]).masked_fill_(is_dead_BC, 0)
    token_BC = found.token_M[chosen_BC].long().masked_fill_(is_dead_BC, -1)
    state_BC = found.child_M[chosen_BC].long().masked_fill_(is_dead_BC, -1)
    return Candidates(score_BC, beam_BC, token_BC, state_BC)


def top_candidates_of_one_node(
    node: Nodes,
    label: torch.Tensor,
    eos_id: int,
    logits_BV: torch.Tensor,
    score_B1: torch.Tensor,
    log_total_B: torch.Tensor | None,
    count: int,
) -> Candidates:
    """As `top_candidates`, for rows of one beam each that all stand on one node, as at the root:
    they share their continuations. The candidates are (B, C)."""
    first = int(node.first_N)
    fan = int(node.fan_N)
    is_end = bool(node.is_end_N)
    token_W = pad(label[first : first + fan].long(), (0, is_end), value=eos_id)
    score_BW = logits_BV.index_select(1, token_W).float()
    if log_total_B is None:
        log_total_B = score_BW.logsumexp(1)
    score_BW += _or_dead(score_B1 - log_total_B[:, None])
    score_BC, place_BC, is_dead_BC = _best_places(score_BW, count)
    token_BC = pad(token_W, (0, count))[place_BC].masked_fill_(is_dead_BC, -1)
    state_BC = torch.where(place_BC < fan, first + place_BC, node.state_N).masked_fill_(
        is_dead_BC, -1
    )
    return Candidates(score_BC, torch.zeros_like(place_BC), token_BC, state_BC)


def _best_places(
    score_BW: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(score, place, whether there is none) of the best `count` of each row."""
    lacking = count - score_BW.shape[1]
    score_BW = _or_dead(score_BW)
    if lacking > 0:
        score_BW = pad(score_BW, (0, lacking), value=NEGATIVE_INFINITY)
    score_BC, place_BC = first_best(score_BW, count)
    return score_BC, place_BC, score_BC == NEGATIVE_INFINITY


def places(logits_NV: torch.Tensor, found: Continuations) -> torch.Tensor:
    """Where the logits of the continuations lie in the flat logits, in 32 bits where they are
    enough: (M,)."""
    beam_M = found.beam_M if logits_NV.numel() < 1 << 31 else found.beam_M.long()
    return (beam_M * logits_NV.shape[1]).add_(found.token_M)


def log_sums(logit_M: torch.Tensor, beam_M: torch.Tensor, beams: int) -> torch.Tensor:
    """log of the sum of exp(logit) over the continuations of each beam: (N,)."""
    index_M = beam_M.long()
    nothing_N = logit_M.new_full((beams,), NEGATIVE_INFINITY)
    top_N = nothing_N.scatter_reduce(0, index_M, logit_M, "amax").nan_to_num_(
        nan=0.0, posinf=0.0, neginf=0.0
    )
    part_M = (logit_M - top_N.index_select(0, beam_M)).exp_()
    return top_N.new_zeros(beams).scatter_reduce_(0, index_M, part_M, "sum").log_().add_(top_N)


def _or_dead(scores: torch.Tensor) -> torch.Tensor:
    """The scores, in place, with -inf for what is no number."""
    return scores.nan_to_num_(
        nan=NEGATIVE_INFINITY, posinf=NEGATIVE_INFINITY, neginf=NEGATIVE_INFINITY
    )


def _side_by_side(score_M: torch.Tensor, found: Continuations) -> torch.Tensor:
    """The continuations of each row: (B, W), -inf behind them."""
    if found.counts is None or len(found.counts) == 1:
        return score_M.view(len(found.begin_B), found.width)
    return pad_sequence(
        score_M.split(found.counts), batch_first=True, padding_value=NEGATIVE_INFINITY
    )


def log_totals(logits_NV: torch.Tensor) -> torch.Tensor:
    """logsumexp of every row, float32: (N,).

    On a CPU `torch.log_softmax`, some rows at a time, into a buffer that stays in the cache, takes
    half the time of `torch.logsumexp`. It gives log p = logit - log Z for every token, and log Z is
    the same for all. So one column is enough to tell it: log Z = logit - log p. The column must
    have a finite logit; the rows where it has none are done again with logsumexp.
    """
    if logits_NV.device.type != "cpu":
        return logits_NV.float().logsumexp(1)
    rows, vocabulary = logits_NV.shape
    total_N = torch.empty(rows)
    buffer = torch.empty(min(rows, ROWS_AT_ONCE), vocabulary)
    # a common token, unlike the first and the last, which are often masked
    column = vocabulary // 2
    for first in range(0, rows, ROWS_AT_ONCE):
        chunk = logits_NV[first : first + ROWS_AT_ONCE].float()
        log_probs = torch.log_softmax(chunk, 1, out=buffer[: len(chunk)])
        total_N[first : first + ROWS_AT_ONCE] = chunk[:, column] - log_probs[:, column]
    if not math.isfinite(total_N.sum()):  # -inf in that column, or a row without a finite sum
        unread_R = (~total_N.isfinite()).nonzero()[:, 0]
        total_N[unread_R] = logits_NV[unread_R].float().logsumexp(1)
    return total_N
