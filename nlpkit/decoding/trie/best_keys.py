"""The best keys of a whole trie where every position is scored at once, as masked language models
do: exact, no beam.

The positions do not depend on one another, so with log-probabilities lp[t, token] the nodes at
depth t + 1 score

    s(child) = s(parent) + lp[t, label(child)]

one addition a node, a level at a time. A key of L tokens scores s(its node) + lp[L, eos]; one that
fills all T positions needs no end; longer ones are left out.

Source: https://kexue.fm/archives/7148 (answers from a masked LM that are among given strings; there
by search).
Legend: B rows, T positions, V vocabulary, N best keys, R rows of one trie, L nodes of a level,
E nodes of it where keys end.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from nlpkit.decoding.best import first_best
from nlpkit.decoding.trie.continuations import NEGATIVE_INFINITY
from nlpkit.decoding.trie.csr import boundaries
from nlpkit.decoding.trie.table import TrieTable

MOST_SCORES = 1 << 24  # of a level held at once: rows beyond it wait


@torch.no_grad()
def choices(
    log_probs_BTV: torch.Tensor, table: TrieTable, count: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` best keys of every row, best first.

    Args:
        log_probs_BTV: of each position.
        table: of one trie for all rows, or one for each.
        count: N.

    Returns (score_BN, state_BN): the state is where the key ends; where there are fewer keys, -inf
    and -1.
    """
    root_B = table.start(len(log_probs_BTV))[:, 0]
    score_BN = log_probs_BTV.new_full((len(root_B), count), NEGATIVE_INFINITY)
    state_BN = torch.full((len(root_B), count), -1, device=root_B.device)
    for root in root_B.unique().tolist():
        bounds = boundaries(table.first_child, root)
        widest = max(end - start for start, end in pairwise(bounds))
        for row_R in (root_B == root).nonzero()[:, 0].split(max(1, MOST_SCORES // widest)):
            score_BN[row_R], state_BN[row_R] = _of_one_trie(
                log_probs_BTV[row_R], table, bounds, count
            )
    return score_BN, state_BN


def _of_one_trie(
    log_probs_RTV: torch.Tensor, table: TrieTable, bounds: list[int], count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, positions, _ = log_probs_RTV.shape
    best_RN = log_probs_RTV.new_full((rows, count), NEGATIVE_INFINITY)
    state_RN = torch.full((rows, count), -1, device=best_RN.device)
    score_RL = best_RN.new_zeros(rows, 1)
    fan_L = None
    for depth, (start, end) in enumerate(pairwise(bounds[: positions + 2])):
        if fan_L is not None:
            score_RL = score_RL.repeat_interleave(fan_L, 1, output_size=end - start)
            score_RL += log_probs_RTV[:, depth - 1].index_select(1, table.label[start:end].int())
        first_child = table.first_child[start : end + 1]
        fan_L = (first_child >> 1).diff()
        ended_E = (first_child[:-1] & 1).nonzero()[:, 0]
        ended_RE = score_RL.index_select(1, ended_E)
        if depth < positions:
            ended_RE += log_probs_RTV[:, depth, table.eos_id, None]
        score_RX = torch.cat(
            [best_RN, ended_RE.nan_to_num_(nan=NEGATIVE_INFINITY, neginf=NEGATIVE_INFINITY)], 1
        )
        best_RN, chosen_RN = first_best(score_RX, count)
        state_RN = torch.cat([state_RN, (start + ended_E).expand(rows, -1)], 1).gather(1, chosen_RN)
    return best_RN, state_RN.masked_fill(best_RN == NEGATIVE_INFINITY, -1)
