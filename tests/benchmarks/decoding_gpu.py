"""What `decoding.py --device cuda` measures: the steps of one decode in a CUDA graph, where nothing
that waits can be.

    ours        `TrieTable.step` in the fused way, full and renorm
    fixed       the same in the fixed way, with a capacity for each depth
    bare        a Triton kernel that reads the logits of ours once and writes their logsumexp, a program a row
    floor       log_softmax, beam scores and topk of torch, without any constraint

The logits of the steps together are larger than the cache of the card, so each step reads its own
from memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from nlpkit.decoding.trie.table import TrieTable
from nlpkit.decoding.trie.token_trie import TokenTrie

ROUNDS = 5  # through the steps in one graph


def figures(
    trie: TokenTrie, eos_id: int, moments: list[Any], wanted: list[torch.Tensor], repeats: int
) -> dict:
    """The figures by name; `moments` of `decoding.Moment`, `wanted` the scores that the host finds
    in them."""
    moments = [type(moment)(*(part.cuda() for part in vars(moment).values())) for moment in moments]
    fused, fixed = (TrieTable.of(trie, eos_id, "cuda", backend=way) for way in ("fused", "fixed"))
    count = wanted[0].shape[1]

    def ours(table: TrieTable, norm: Any) -> Callable[[int], torch.Tensor]:
        def step(depth: int) -> torch.Tensor:
            m = moments[depth]
            return table.step(m.logits_BKV, m.score_BK, m.state_BK, count, norm, depth).score_BC

        return step

    def floor(depth: int) -> torch.Tensor:
        log_probs_NV = torch.log_softmax(moments[depth].logits_NV, 1) + moments[
            depth
        ].wide_score_BK.view(-1, 1)
        return log_probs_NV.view(len(wanted[0]), -1).topk(count).values

    steps = {
        "ours": ours(fused, "full"),
        "renorm": ours(fused, "renorm"),
        "fixed": ours(fixed, "full"),
        "bare": lambda depth: log_totals(moments[depth].logits_BKV.flatten(0, 1)),
        "floor": floor,
    }
    for depth, scores in enumerate(wanted):
        torch.testing.assert_close(steps["ours"](depth).cpu(), scores, rtol=1e-5, atol=1e-4)
        total_N = moments[depth].logits_BKV.flatten(0, 1).logsumexp(1)
        torch.testing.assert_close(steps["bare"](depth), total_N, rtol=1e-5, atol=1e-4)
    us = {name: microseconds(step, len(moments), repeats) for name, step in steps.items()}
    waiting = [name for name in ("ours", "renorm") if waits(steps[name], len(moments))]
    return {
        "GPU: us a step": us["ours"],
        "GPU: us a step, renorm": us["renorm"],
        "GPU: ours / bare logsumexp": us["ours"] / us["bare"],
        "GPU: ours / log_softmax and topk": us["ours"] / us["floor"],
        "GPU: fixed way / ours": us["fixed"] / us["ours"],
        "GPU: ways of ours that wait": len(waiting),
    }


def microseconds(step: Callable[[int], torch.Tensor], steps: int, repeats: int) -> float:
    """Of one step, the mean over all: the least of `repeats` replays of a graph of them."""
    for depth in range(steps):
        step(depth)  # what is compiled the first time
    torch.cuda.synchronize()
    graph, start, end = (
        torch.cuda.CUDAGraph(),
        *(torch.cuda.Event(enable_timing=True) for _ in range(2)),
    )
    with torch.cuda.graph(graph):
        for _ in range(ROUNDS):
            for depth in range(steps):
                step(depth)
    times = []
    for _ in range(repeats + 1):
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return 1000 * min(times) / ROUNDS / steps


def waits(step: Callable[[int], torch.Tensor], steps: int) -> bool:
    """Whether the host waits for the device in any of the steps."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        for depth in range(steps):
            step(depth)
    except RuntimeError:
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def log_totals(logits_NV: torch.Tensor) -> torch.Tensor:
    """logsumexp of every row."""
    total_N = logits_NV.new_empty(len(logits_NV))
    _log_total[(len(logits_NV),)](logits_NV, total_N, logits_NV.shape[1], 4096, num_warps=8)
    return total_N


@triton.jit
def _log_total(logits_NV, total_N, V: tl.constexpr, PIECE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    top, total = tl.full([], -1e30, tl.float32), tl.full([], 0.0, tl.float32)
    for begin in range(0, V, PIECE):
        token = begin + tl.arange(0, PIECE)
        logit = tl.load(logits_NV + row * V + token, mask=token < V, other=float("-inf"))
        new_top = tl.maximum(top, tl.max(logit, 0))
        total = total * tl.exp(top - new_top) + tl.sum(tl.exp(logit - new_top), 0)
        top = new_top
    tl.store(total_N + row, tl.log(total) + top)
