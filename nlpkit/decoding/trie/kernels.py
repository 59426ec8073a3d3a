"""One step of a search in a table of tries as two Triton kernels: what `continuations` does in
torch, on a GPU.

First every beam's work is divided among programs that know nothing of each other. Within a beam the
order by logit is that by score. So the best continuations need no log Z yet, and the logits are
read once:

    grid N x (S + P)   continuations: children, then the end          vocabulary (only `full`)
                       share 0 | share 1 | .. | share S-1             piece 0 | piece 1 | .. | piece P-1
    beam 0                #         #              .                     #         #              #
    beam 1                #         .              .                     #         #              #
     ..                   v         v              v                     v         v              v
    beam N-1          key_NST: the best T of each share              top_NP, sum_NP: parts of log Z

    grid B             row b: log Z of its K beams, the scores of its K * S * T keys, the best `count` of them

How many children a node has is read on the device, which a share then loops over in blocks, so the
grid is the same for any states: nothing is asked of the device, and one CUDA graph serves every
depth. A share beyond the children (.) and the programs of a dead beam end at once. `renorm` has no
pieces: its shares add up log Z as they go.

How a value and its place make a key: see `kernel_keys`.

Source: https://arxiv.org/abs/1805.02867 (the normaliser in parts, each with its own largest logit).
Legend: B rows, K beams, N = B * K, V vocabulary, S shares, P pieces (of log Z in `renorm`: shares),
T kept of a share, L = S * T keys of a beam, F children, C candidates, X any shape.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton import next_power_of_2 as power_of_2
from triton.language import topk  # Triton has it from 3.4 on, which torch brings from 2.8 on

from nlpkit.decoding.constraint import Candidates, Norm
from nlpkit.decoding.trie.kernel_keys import NOTHING, best_of_both, key_of, place_of, value_of

MOST_COUNT = 128  # candidates a row that the kernels are made for
BLOCK = 512  # continuations of a share, looked at at once
FEW = 64  # where a share has no more, as most
PIECE = 4096  # logits, 16 kB in float32
PROGRAMS = 1024  # shares of all beams, to keep a GPU of 132 processors busy
MOST_KEYS = 8192  # of a row, where that leaves a beam a share
TILE = 1024  # keys of a row, looked at at once: at least those of a beam

NEGATIVE_INFINITY = tl.constexpr(float("-inf"))


class Nodes(NamedTuple):
    """What a step reads of a table, see `TrieTable`."""

    first_child: torch.Tensor
    label: torch.Tensor
    eos_id: int
    widest_fan: int


def step(
    nodes: Nodes,
    logits_NV: torch.Tensor,
    score_BK: torch.Tensor,
    state_BK: torch.Tensor,
    count: int,
    norm: Norm,
) -> Candidates:
    """See `TrieTable.step`; at most MOST_COUNT candidates."""
    (rows, beams), vocabulary = score_BK.shape, logits_NV.shape[1]
    logits_NV = logits_NV if logits_NV.stride(1) == 1 else logits_NV.contiguous()
    score_BK, state_BK = score_BK.contiguous(), state_BK.contiguous()
    kept = power_of_2(max(count, 2))  # not every Triton has a `topk` of one
    shares = _shares(rows, beams, kept, nodes.widest_fan + 1)
    pieces = triton.cdiv(vocabulary, PIECE) if norm == "full" else 0
    parts = pieces or shares  # of log Z
    key_NST = state_BK.new_empty((rows * beams, shares, kept))
    top_NP, sum_NP = score_BK.new_empty((2, rows * beams, parts))
    score_BC = score_BK.new_empty((rows, count))
    beam_BC, token_BC, state_BC = state_BK.new_empty((3, rows, count))
    given = (
        nodes.first_child,
        nodes.label,
        nodes.eos_id,
        score_BK,
        state_BK,
        key_NST,
        top_NP,
        sum_NP,
    )
    with torch.cuda.device_of(logits_NV):  # where Triton launches
        _look[(rows * beams, shares + pieces)](
            *given, logits_NV, STRIDE=logits_NV.stride(0), V=vocabulary, S=shares, P=pieces, T=kept,
            BLOCK=max(BLOCK, kept), FEW=max(FEW, kept), PIECE=PIECE,
        )  # fmt: skip
        _merge[(rows,)](
            *given, score_BC, beam_BC, token_BC, state_BC, beams, count,
            L=shares * kept, P=parts, POWER_P=power_of_2(parts), T=kept,
            TILE_K=min(power_of_2(beams), max(1, TILE // (shares * kept))),
        )  # fmt: skip
    return Candidates(score_BC, beam_BC, token_BC, state_BC)


def _shares(rows: int, beams: int, kept: int, widest: int) -> int:
    """Programs for the continuations of a beam: as many as keep the device busy, have work and leave the
    merge little."""
    most = min(
        triton.cdiv(widest, BLOCK),
        PROGRAMS // (rows * beams),
        MOST_KEYS // (beams * kept),
        TILE // kept,
    )
    return power_of_2(max(1, most))


@triton.jit
def _look(
    first_child, label, eos, score_N, state_N, key_NST, top_NP, sum_NP,
    logits_NV, STRIDE: tl.constexpr, V: tl.constexpr, S: tl.constexpr, P: tl.constexpr, T: tl.constexpr,
    BLOCK: tl.constexpr, FEW: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """A share of a beam's continuations, or a piece of its logits."""
    beam, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    node = tl.load(state_N + beam)
    is_live = (node >= 0) & (tl.load(score_N + beam) > NEGATIVE_INFINITY)
    logits_V = logits_NV + beam * STRIDE
    if part < S:
        best_T, top, total = _best_of_share(
            first_child, label, eos, logits_V, node, is_live, part, S, T, BLOCK, FEW
        )
        tl.store(key_NST + (beam * S + part) * T + tl.arange(0, T), best_T)
        if P == 0:
            tl.store(top_NP + beam * S + part, top)
            tl.store(sum_NP + beam * S + part, total)
    else:
        token = (part - S) * PIECE + tl.arange(0, PIECE)
        end = tl.where(is_live, V, 0)
        logit = tl.load(logits_V + token, mask=token < end, other=NEGATIVE_INFINITY)
        top, total = _with(logit.to(tl.float32), *_nothing())
        tl.store(top_NP + beam * P + part - S, top)
        tl.store(sum_NP + beam * P + part - S, total)


@triton.jit
def _best_of_share(
    first_child, label, eos, logits_V, node, is_live, share,
    S: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """(keys of the best T of them, their largest logit, sum of exp(logit - it)) of one of the shares
    of a node."""
    first, fan, is_end = _node(first_child, node, is_live)
    size = fan + is_end
    width = (
        tl.cdiv(tl.cdiv(size, S), BLOCK) * BLOCK
    )  # of a share: whole blocks, so that a few stay in share 0
    begin = share * width
    end = tl.minimum(size, begin + width)
    best_T = tl.full([T], NOTHING, tl.int64)
    top, total = _nothing()
    if end - begin > FEW:
        for at in range(begin, end, BLOCK):
            best_T, top, total = _with_continuations(
                best_T, top, total, label + first, fan, eos, logits_V, at, end, BLOCK
            )
    elif begin < end:
        best_T, top, total = _with_continuations(
            best_T, top, total, label + first, fan, eos, logits_V, begin, end, FEW
        )
    return best_T, top, total


@triton.jit
def _with_continuations(
    best_T, top, total, label_F, fan, eos, logits_V, begin, end, BLOCK: tl.constexpr
):
    """What `_best_of_share` gives, with some more; `label_F` are the tokens of the children,
    F of them."""
    place = begin + tl.arange(0, BLOCK)
    token = tl.where(
        place < fan, tl.load(label_F + place, mask=place < fan, other=0).to(tl.int32), eos
    )
    logit = tl.load(logits_V + token, mask=place < end, other=NEGATIVE_INFINITY).to(tl.float32)
    key = tl.where(place < end, key_of(logit, place), NOTHING)
    top, total = _with(logit, top, total)
    return best_of_both(best_T, topk(key, best_T.shape[0])), top, total


@triton.jit
def _merge(
    first_child, label, eos, score_N, state_N, key_NST, top_NP, sum_NP,
    score_BC, beam_BC, token_BC, state_BC, beams, count,
    L: tl.constexpr, P: tl.constexpr, POWER_P: tl.constexpr, T: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    """The candidates of a row."""
    row = tl.program_id(0).to(tl.int64)
    best_T = tl.full([T], NOTHING, tl.int64)
    for begin in range(0, beams, TILE_K):
        beam_K = begin + tl.arange(0, TILE_K)
        base_K = _base(score_N, top_NP, sum_NP, row * beams + beam_K, beam_K < beams, P, POWER_P)
        place_KL = beam_K[:, None] * L + tl.arange(0, L)[None, :]
        key_KL = tl.load(
            key_NST + row * beams * L + place_KL, mask=(beam_K < beams)[:, None], other=NOTHING
        )
        score_KL = _or_dead(value_of(key_KL) + base_K[:, None])
        best_T = best_of_both(best_T, topk(tl.reshape(key_of(score_KL, place_KL), [TILE_K * L]), T))
    score_T, place_T = value_of(best_T), place_of(best_T)
    is_one_T = score_T > NEGATIVE_INFINITY
    beam_T = tl.where(is_one_T, place_T // L, 0)
    chosen_T = place_of(tl.load(key_NST + row * beams * L + place_T, mask=is_one_T, other=NOTHING))
    node_T = tl.load(state_N + row * beams + beam_T, mask=is_one_T, other=0)
    first_T, fan_T, _ = _node(first_child, node_T, is_one_T)
    token_T = tl.load(label + first_T + chosen_T, mask=is_one_T & (chosen_T < fan_T), other=0).to(
        tl.int32
    )
    token_T = tl.where(chosen_T < fan_T, token_T, eos)
    child_T = tl.where(chosen_T < fan_T, (first_T + chosen_T).to(tl.int64), node_T)
    rank_T = tl.arange(0, T)
    place_T, is_wanted_T = row * count + rank_T, rank_T < count
    tl.store(score_BC + place_T, score_T, mask=is_wanted_T)
    tl.store(beam_BC + place_T, beam_T.to(tl.int64), mask=is_wanted_T)
    tl.store(token_BC + place_T, tl.where(is_one_T, token_T, -1).to(tl.int64), mask=is_wanted_T)
    tl.store(state_BC + place_T, tl.where(is_one_T, child_T, -1), mask=is_wanted_T)


@triton.jit
def _base(score_N, top_NP, sum_NP, beam_K, is_beam_K, P: tl.constexpr, POWER_P: tl.constexpr):
    """score - log Z of some beams, -inf where that is not finite."""
    part_P = tl.arange(0, POWER_P)
    at_KP, is_part_KP = (
        beam_K[:, None] * P + part_P[None, :],
        is_beam_K[:, None] & (part_P < P)[None, :],
    )
    top_KP = tl.load(top_NP + at_KP, mask=is_part_KP, other=NEGATIVE_INFINITY)
    sum_KP = tl.load(sum_NP + at_KP, mask=is_part_KP, other=0.0)
    top_K = _or_zero(tl.max(top_KP, 1))
    log_total_K = tl.log(tl.sum(sum_KP * tl.exp(top_KP - top_K[:, None]), 1)) + top_K
    return _or_dead(
        tl.load(score_N + beam_K, mask=is_beam_K, other=NEGATIVE_INFINITY) - log_total_K
    )


@triton.jit
def _node(first_child, node_X, is_one_X):
    """(first child, number of children, 1 where a key ends) of nodes; all 0 where there is none."""
    packed_X = tl.load(first_child + node_X, mask=is_one_X, other=0)
    first_X = packed_X >> 1
    fan_X = (tl.load(first_child + node_X + 1, mask=is_one_X, other=0) >> 1) - first_X
    return first_X, fan_X, packed_X & 1


@triton.jit
def _nothing():
    """What `_with` starts from."""
    return tl.full([], NEGATIVE_INFINITY, tl.float32), tl.full([], 0.0, tl.float32)


@triton.jit
def _with(logit_X, top, total):
    """The largest logit so far and the sum of exp(logit - it), with some more of them."""
    new_top = tl.maximum(top, tl.max(logit_X, 0))
    shift = _or_zero(new_top)
    return new_top, total * tl.exp(top - shift) + tl.sum(tl.exp(logit_X - shift), 0)


@triton.jit
def _or_zero(top_X):
    """What to take off before exp: exp(-inf - -inf) would be no number."""
    return tl.where(top_X == NEGATIVE_INFINITY, 0.0, top_X)


@triton.jit
def _or_dead(score_X):
    """-inf for what is no finite number."""
    return tl.where(tl.abs(score_X) < float("inf"), score_X, NEGATIVE_INFINITY)


INTERPRETED = not isinstance(_look, triton.JITFunction)  # on a CPU, for tests
