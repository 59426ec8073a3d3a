"""What `decoding.py --device cuda` measures: the steps of one decode, in a CUDA graph where nothing
that waits can be.

    ours        `TrieTable.step` of the fixed layout with a capacity for each depth, full and renorm
    ragged      the same of the ragged layout, which waits in every step and so is in no graph
    bare        logsumexp of torch over the logits of ours
    floor       log_softmax, beam scores and topk of torch, without any constraint

The logits of the steps together are larger than the cache of the card, so each step reads its own
from memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nlpkit.decoding.trie.table import TrieTable
from nlpkit.decoding.trie.token_trie import TokenTrie

ROUNDS = 5  # through the steps in one graph


def figures(
    trie: TokenTrie, eos_id: int, moments: list[Any], wanted: list[torch.Tensor], repeats: int
) -> dict:
    """The figures by name; `moments` of `decoding.Moment`, `wanted` the scores that the host finds
    in them."""
    moments = [type(moment)(*(part.cuda() for part in vars(moment).values())) for moment in moments]
    fixed = TrieTable.of(trie, eos_id, "cuda")
    ragged = TrieTable.of(trie, eos_id, "cuda", layout="ragged")
    count = wanted[0].shape[1]

    def ours(table: TrieTable, norm: Any) -> Callable[[int], torch.Tensor]:
        def step(depth: int) -> torch.Tensor:
            m = moments[depth]
            return table.step(m.logits_BKV, m.score_BK, m.state_BK, count, norm, depth).score_BC

        return step

    def floor(depth: int) -> torch.Tensor:
        log_probs_NV = torch.log_softmax(moments[depth].logits_NV, 1)
        log_probs_NV = log_probs_NV + moments[depth].wide_score_BK.view(-1, 1)
        return log_probs_NV.view(len(wanted[0]), -1).topk(count).values

    steps = {
        "ours": ours(fixed, "full"),
        "renorm": ours(fixed, "renorm"),
        "bare": lambda depth: moments[depth].logits_BKV.flatten(0, 1).logsumexp(1),
        "floor": floor,
    }
    for depth, scores in enumerate(wanted):
        torch.testing.assert_close(steps["ours"](depth).cpu(), scores, rtol=1e-5, atol=1e-4)
    us = {name: microseconds(step, len(moments), repeats) for name, step in steps.items()}
    us["ragged"] = microseconds(ours(ragged, "full"), len(moments), repeats, as_graph=False)
    waiting = [name for name in ("ours", "renorm") if waits(steps[name], len(moments))]
    return {
        "GPU: us a step": us["ours"],
        "GPU: us a step, renorm": us["renorm"],
        "GPU: ours / bare logsumexp": us["ours"] / us["bare"],
        "GPU: ours / log_softmax and topk": us["ours"] / us["floor"],
        "GPU: ragged layout / ours": us["ragged"] / us["ours"],
        "GPU: ways of ours that wait": len(waiting),
    }


def microseconds(
    step: Callable[[int], torch.Tensor], steps: int, repeats: int, as_graph: bool = True
) -> float:
    """Of one step, the mean over all: the least of `repeats` times ROUNDS of them, replayed as a
    graph or called."""

    def rounds() -> None:
        for _ in range(ROUNDS):
            for depth in range(steps):
                step(depth)

    rounds()  # what is loaded the first time
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    again = rounds
    if as_graph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            rounds()
        again = graph.replay
    times = []
    for _ in range(repeats + 1):
        start.record()
        again()
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
