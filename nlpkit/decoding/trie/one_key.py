"""Where a single key of a trie is left, so that all that follows is certain. N states."""

from __future__ import annotations

import torch

from nlpkit.decoding.trie.table import TrieTable


def has_one_key(table: TrieTable, state_N: torch.Tensor) -> torch.Tensor:
    """Whether a single key lies at and below the states of a table with key ranges: bool (N,),
    false for -1.

    Told by the keys from a node to the next of its level, among which may be shorter ones that are
    not its own: so it is false also for a few nodes of one key.
    """
    assert table.first_key is not None
    keys_N = table.first_key[state_N.clamp_min(0) + 1] - table.first_key[state_N]
    nodes = table.nodes(state_N)
    goes_on_N = nodes.is_end_N & (nodes.fan_N > 0)  # the next may be its child
    return (state_N >= 0) & (keys_N == 1) & ~goes_on_N
