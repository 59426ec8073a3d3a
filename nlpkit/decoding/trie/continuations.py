"""One step of a search in a table of tries: which tokens are legal for each beam, and the best of
them for each row.

A slot is one legal continuation: a child of the beam's node, or its end. The slots of all beams lie
in one list, so that a node with two children costs two numbers, however many its neighbours have,
and nothing is as long as V:

    slots (M)   beam, token, child -> logit = logits[beam, token] -> score
    board       the slots of each row side by side -> the best `count`

A slot scores score_k + logit - log Z_k, where Z_k sums exp(logit) over the vocabulary (`full`) or
over the slots of beam k (`renorm`). Where that is not finite (NaN or inf among its logits, or all
-inf) the beam has no continuations.

The list is `ragged`, which asks the device for its length, or `fixed`: for each row as long as that
of any row can be, which asks nothing, so that the host never waits and the shapes are always the
same.

Source: https://arxiv.org/abs/2602.22647 (gathering the children of a CSR trie instead of masking
the vocabulary).
Differs from it: no padding to the widest node of a level, exact ends, any lengths, several tries.
Legend: B rows, K beams, N = B * K, V vocabulary, M slots, W slots of a row, C candidates.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from nlpkit.decoding.constraint import Candidates

NEGATIVE_INFINITY = float("-inf")
PIECE = 16  # rows of logits normalised at once on a CPU: their log-probabilities fit its cache


class Nodes(NamedTuple):
    """Where the N beams stand; dead ones have no children and no end."""

    state_N: torch.Tensor
    first_N: torch.Tensor
    """The first child, int32."""
    fan_N: torch.Tensor
    """The number of children, int32."""
    is_end_N: torch.Tensor


class Slots(NamedTuple):
    """All legal continuations."""

    beam_M: torch.Tensor
    """Which of the N beams it continues, int32."""
    child_M: torch.Tensor
    """The node it leads to, int32; for an end that of the beam."""
    token_M: torch.Tensor
    begin_B: torch.Tensor
    """The first slot of each row."""
    width: int
    """The most slots of a row."""
    counts: list[int] | None = None
    """The slots of each row; None: `width`, of which not all are valid."""
    is_valid_M: torch.Tensor | None = None


def ragged(nodes: Nodes, rows: int, label: torch.Tensor, eos_id: int) -> Slots:
    """As many slots as there are, on any device."""
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
    last_E = after_N.index_select(0, ending_E).long() - 1  # the last slot of a beam is its end
    child_M[last_E] = nodes.state_N.index_select(0, ending_E).int()
    token_M[last_E] = eos_id
    return Slots(beam_M, child_M, token_M, count_B.cumsum(0) - count_B, max(counts), counts)


def fixed(nodes: Nodes, rows: int, label: torch.Tensor, eos_id: int, width: int) -> Slots:
    """`width` slots for each row, which must not have more; nothing is asked of the device."""
    beams, device = len(nodes.fan_N) // rows, label.device
    size_N = nodes.fan_N + nodes.is_end_N
    after_BK = size_N.view(rows, beams).cumsum(1, dtype=torch.int32)
    torch._assert_async(
        (after_BK[:, -1] <= width).all(), "beams of a row share a node, or differ in depth"
    )
    row_B1 = torch.arange(rows, dtype=torch.int32, device=device)[:, None]
    slot_BW = torch.arange(width, dtype=torch.int32, device=device).expand(rows, -1).contiguous()
    found_BW = torch.searchsorted(after_BK, slot_BW, right=True, out_int32=True)
    is_valid_M = (found_BW < beams).flatten()
    beam_M = (found_BW.clamp_max_(beams - 1) + row_B1 * beams).flatten()
    place_M = slot_BW.flatten() - (after_BK.flatten() - size_N).index_select(0, beam_M)
    is_end_M = place_M == nodes.fan_N.index_select(0, beam_M)
    child_M = torch.where(
        is_valid_M & ~is_end_M, nodes.first_N.index_select(0, beam_M) + place_M, 0
    )
    token_M = label.index_select(0, child_M).masked_fill_(is_end_M, eos_id)
    child_M = torch.where(is_end_M, nodes.state_N.index_select(0, beam_M).int(), child_M)
    return Slots(beam_M, child_M, token_M, row_B1[:, 0] * width, width, None, is_valid_M)


def best(
    slots: Slots,
    logits_NV: torch.Tensor,
    score_BK: torch.Tensor,
    log_total_N: torch.Tensor | None,
    count: int,
) -> Candidates:
    """The best `count` slots of every row; `log_total_N` is the log Z of `full`, None asks for
    `renorm`."""
    logit_M = slot_logits(slots, logits_NV)
    if log_total_N is None:
        log_total_N = log_sums(logit_M, slots.beam_M, len(logits_NV))
    return ranked(slots, logit_M, score_BK, log_total_N, count)


def slot_logits(slots: Slots, logits_NV: torch.Tensor) -> torch.Tensor:
    """The logits of the slots, float32, -inf for those that are not valid."""
    logit_M = logits_NV.reshape(-1).index_select(0, places(logits_NV, slots)).float()
    return (
        logit_M
        if slots.is_valid_M is None
        else logit_M.masked_fill_(~slots.is_valid_M, NEGATIVE_INFINITY)
    )


def ranked(
    slots: Slots,
    score_M: torch.Tensor,
    score_BK: torch.Tensor,
    log_total_N: torch.Tensor,
    count: int,
) -> Candidates:
    """The best `count` slots of every row; slot m of beam k scores score_k + score_m - log Z_k, in
    place."""
    base_N = _or_dead(score_BK.flatten() - log_total_N)
    score_M += base_N.index_select(0, slots.beam_M)
    score_BC, place_BC, is_dead_BC = _best_places(_side_by_side(score_M, slots), count)
    if not len(slots.beam_M):
        nothing_BC = torch.full_like(place_BC, -1)
        return Candidates(score_BC, torch.zeros_like(place_BC), nothing_BC, nothing_BC)
    slot_BC = (slots.begin_B[:, None] + place_BC).masked_fill_(is_dead_BC, 0)
    beam_BC = (slots.beam_M[slot_BC].long() % score_BK.shape[1]).masked_fill_(is_dead_BC, 0)
    token_BC = slots.token_M[slot_BC].long().masked_fill_(is_dead_BC, -1)
    return Candidates(
        score_BC, beam_BC, token_BC, slots.child_M[slot_BC].long().masked_fill_(is_dead_BC, -1)
    )


def best_of_one(
    node: Nodes,
    label: torch.Tensor,
    eos_id: int,
    logits_BV: torch.Tensor,
    score_B1: torch.Tensor,
    log_total_B: torch.Tensor | None,
    count: int,
) -> Candidates:
    """As `best`, for rows of one beam each that all stand on one node, as at the root: they share
    their slots."""
    first, fan, is_end = int(node.first_N), int(node.fan_N), bool(node.is_end_N)
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
    score_BC, place_BC = (
        pad(score_BW, (0, lacking), value=NEGATIVE_INFINITY) if lacking > 0 else score_BW
    ).topk(count)
    return score_BC, place_BC, score_BC == NEGATIVE_INFINITY


def places(logits_NV: torch.Tensor, slots: Slots) -> torch.Tensor:
    """Where the slots lie in the flat logits, in 32 bits where they are enough."""
    beam_M = slots.beam_M if logits_NV.numel() < 1 << 31 else slots.beam_M.long()
    return (beam_M * logits_NV.shape[1]).add_(slots.token_M)


def log_sums(logit_M: torch.Tensor, beam_M: torch.Tensor, beams: int) -> torch.Tensor:
    """log of the sum of exp(logit) over the slots of each beam."""
    index_M, nothing_N = beam_M.long(), logit_M.new_full((beams,), NEGATIVE_INFINITY)
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


def _side_by_side(score_M: torch.Tensor, slots: Slots) -> torch.Tensor:
    """The slots of each row: (B, W), -inf behind them."""
    if slots.counts is None or len(slots.counts) == 1:
        return score_M.view(len(slots.begin_B), slots.width)
    return pad_sequence(
        score_M.split(slots.counts), batch_first=True, padding_value=NEGATIVE_INFINITY
    )


def log_totals(logits_NV: torch.Tensor) -> torch.Tensor:
    """logsumexp of every row, float32.

    On a CPU the fastest way is log_softmax, some rows at a time, into a buffer that stays in the
    cache (half the time of logsumexp): log Z is what it took off any finite logit, so one column of
    it is enough.
    """
    if logits_NV.device.type != "cpu":
        return logits_NV.float().logsumexp(1)
    rows, vocabulary = logits_NV.shape
    total_N, buffer = torch.empty(rows), torch.empty(min(rows, PIECE), vocabulary)
    column = (
        vocabulary // 2
    )  # a common token, unlike the first and the last, which are often masked
    for first in range(0, rows, PIECE):
        piece = logits_NV[first : first + PIECE].float()
        log_probs = torch.log_softmax(piece, 1, out=buffer[: len(piece)])
        total_N[first : first + PIECE] = piece[:, column] - log_probs[:, column]
    if not math.isfinite(total_N.sum()):  # -inf in that column, or a row without a finite sum
        unread_R = (~total_N.isfinite()).nonzero()[:, 0]
        total_N[unread_R] = logits_NV[unread_R].float().logsumexp(1)
    return total_N
