"""Tries on a device, as the constraint of a search: any number of them in one table, one for all
rows or one for each.

    table = TrieTable.of(trie, eos_id)                      # one trie for all rows
    # row 0 decodes in `trie`, row 1 in `other`
    table = concat([table, TrieTable.of(other, eos_id)])

A state is the number of a node in the table, -1 is nowhere: dead, without continuations, like every
state after it. The arrays are those of `csr`, moved by the place of their trie in the table. The
end of a sequence is no edge but a bit of the node, so that a key may go on where another ends, and
both compete.

Legend: B rows, K beams, V vocabulary, C candidates, R roots, S strides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, zip_longest
from typing import Literal

import numpy as np
import torch

from nlpkit.decoding.constraint import Candidates, Norm
from nlpkit.decoding.trie.continuations import (
    NEGATIVE_INFINITY,
    Continuations,
    Nodes,
    fixed,
    log_totals,
    ragged,
    top_candidates,
    top_candidates_of_one_node,
)
from nlpkit.decoding.trie.csr import MOST_NODES
from nlpkit.decoding.trie.token_trie import TokenTrie
from nlpkit.errors import SettingsError

MOST_BEAMS = 64  # for which `widest` is exact
LEAST_WIDTH = 256  # continuations of a row that the fixed layout has room for
STRIDES = 32  # that `advance` divides the children into, again and again

Layout = Literal["ragged", "fixed"]
"""How `step` lays out what is legal. Both find the same candidates; of equal scores any may come
first.

    ragged   as much work as there are continuations; asks the device for their number
    fixed    shapes depend on nothing but those of the arguments and the depth: the host never waits
"""


@dataclass(frozen=True, eq=False)
class TrieTable:
    """A `Constraint`. Made by `of` and `concat`."""

    eos_id: int
    vocabulary_size: int
    first_child: torch.Tensor
    """2 * first child of every node, plus 1 where a key ends, int32; two more close each trie."""
    label: torch.Tensor
    """The token that leads to the node."""
    first_key: torch.Tensor | None
    """The first key at or below the node, counted in its own trie, int32."""
    root_R: torch.Tensor
    """Where the rows start: one for all, or one for each."""
    depth: int
    """The most tokens of a key."""
    widest: tuple[tuple[int, ...], ...]
    """Item k - 1 of each depth: the most children that k different nodes there have together."""
    layout: Layout

    def start(self, rows: int) -> torch.Tensor:
        """The roots: (rows, 1). Raises SettingsError where there is a root for each of another
        number of rows."""
        if len(self.root_R) not in (1, rows):
            expected = f"expected one root for all or one for each of {rows} rows"
            raise SettingsError(f"tables: {expected}, got {len(self.root_R)}")
        return self.root_R.expand(rows)[:, None]

    @classmethod
    def of(
        cls,
        trie: TokenTrie,
        eos_id: int,
        device: torch.device | str = "cpu",
        *,
        key_ranges: bool = False,
        layout: Layout | None = None,
    ) -> TrieTable:
        """The table of one trie.

        Args:
            trie: of which nothing is copied on a CPU.
            eos_id: the token that ends a sequence.
            device: where the table lies.
            key_ranges: keep `first_key`, 4 bytes a node.
            layout: of `step`; None: ragged on a CPU, fixed elsewhere.

        Raises SettingsError for an `eos_id` outside the vocabulary.
        """
        if not 0 <= eos_id < trie.vocabulary_size:
            raise SettingsError(
                f"eos_id: expected a token in [0, {trie.vocabulary_size}), got {eos_id}"
            )
        device = torch.device(device)
        if layout is None:
            layout = "ragged" if device.type == "cpu" else "fixed"
        first_child, label, first_key = (torch.from_numpy(part) for part in trie.csr)
        return cls(
            eos_id=eos_id,
            vocabulary_size=trie.vocabulary_size,
            first_child=first_child.to(device),
            label=label.to(device),
            first_key=first_key.to(device) if key_ranges else None,
            root_R=torch.zeros(1, dtype=torch.int64, device=device),
            depth=trie.depth,
            widest=() if layout == "ragged" else _widest(trie),
            layout=layout,
        )

    @torch.no_grad()
    def step(
        self,
        logits_BKV: torch.Tensor,
        score_BK: torch.Tensor,
        state_BK: torch.Tensor,
        count: int,
        norm: Norm = "full",
        depth: int | None = None,
    ) -> Candidates:
        """See `Constraint.step`. The live beams of a row stand on different nodes of one depth,
        `depth` if given.

        Raises SettingsError for logits of fewer tokens than the vocabulary of the tries has.
        """
        if logits_BKV.shape[2] < self.vocabulary_size:
            raise SettingsError(
                f"logits: expected {self.vocabulary_size} tokens, got {logits_BKV.shape[2]}"
            )
        rows, beams, vocabulary = logits_BKV.shape
        logits_NV = logits_BKV.reshape(-1, vocabulary)
        score_BK = score_BK.float()
        log_total_N = log_totals(logits_NV) if norm == "full" else None
        if self.layout == "ragged" and beams == 1 and bool((state_BK == state_BK[0]).all()):
            node = self.nodes(state_BK[0])
            return top_candidates_of_one_node(
                node, self.label, self.eos_id, logits_NV, score_BK, log_total_N, count
            )
        found = self.continuations(score_BK, state_BK, depth)
        return top_candidates(found, logits_NV, score_BK, log_total_N, count)

    def continuations(
        self, score_BK: torch.Tensor, state_BK: torch.Tensor, depth: int | None = None
    ) -> Continuations:
        """What the live beams (B, K) may go on with, arrays (M,), see `step`."""
        rows, beams = score_BK.shape
        nodes = self.nodes(state_BK.masked_fill(score_BK == NEGATIVE_INFINITY, -1).flatten())
        if self.layout == "ragged":
            return ragged(nodes, rows, self.label, self.eos_id)
        return fixed(nodes, rows, self.label, self.eos_id, self.capacity(beams, depth))

    def follow(
        self, state_BK: torch.Tensor, candidates: Candidates, chosen_BK: torch.Tensor
    ) -> torch.Tensor:
        """See `Constraint.follow`. The nodes: (B, K')."""
        return candidates.state_BC.gather(1, chosen_BK)

    def nodes(self, state_N: torch.Tensor) -> Nodes:
        """What follows the states; nothing follows -1, which is the last place of all arrays."""
        own_N, next_N = self.first_child.unfold(0, 2, 1)[state_N].unbind(1)
        first_N = own_N >> 1
        return Nodes(state_N, first_N, (next_N >> 1) - first_N, (own_N & 1).bool())

    def allowed(self, state: int) -> list[int]:
        """The tokens that are legal at one state, sorted, and `eos_id` behind them where a key
        ends."""
        nodes = self.nodes(torch.tensor([state], device=self.first_child.device))
        first = int(nodes.first_N)
        tokens = self.label[first : first + int(nodes.fan_N)].tolist()
        return [*tokens, self.eos_id] if bool(nodes.is_end_N) else tokens

    def advance(self, state_N: torch.Tensor, token_N: torch.Tensor) -> torch.Tensor:
        """The states (N,) after one token each, -1 where it is not legal: a search among the
        children in strides."""
        nodes = self.nodes(state_N)
        # the child is at `low` or at most `size` further on
        low_N = nodes.first_N
        size_N = nodes.fan_N
        end_N = low_N + size_N
        widest = self._most_children(size_N)
        ladder_S = torch.arange(1, STRIDES + 1, dtype=torch.int32, device=state_N.device)
        while widest:
            stride_N = size_N // STRIDES + 1
            probe_NS = low_N[:, None] + stride_N[:, None] * ladder_S - 1
            label_NS = self.label[probe_NS.clamp_max(len(self.label) - 1)]
            is_before_NS = (label_NS < token_N[:, None]) & (probe_NS < (low_N + size_N)[:, None])
            passed_N = is_before_NS.sum(1, dtype=torch.int32) * stride_N
            low_N = low_N + passed_N
            size_N = torch.minimum(stride_N - 1, size_N - passed_N)
            widest //= STRIDES
        return torch.where((low_N < end_N) & (self.label[low_N] == token_N), low_N, -1).long()

    def _most_children(self, fan_N: torch.Tensor) -> int:
        """Of these nodes; where the device must not be asked, of all nodes."""
        if self.layout != "ragged":
            return self.widest_fan
        return int(fan_N.max()) if len(fan_N) else 0

    @property
    def widest_fan(self) -> int:
        """The most children of a node."""
        return max((widest_K[0] for widest_K in self.widest), default=0)

    def capacity(self, beams: int, depth: int | None = None) -> int:
        """Room for the continuations, ends too, that so many live beams of a row have together at
        `depth` (None: any).

        It is a power of two, so that few different shapes serve all depths.
        """
        known = min(beams, MOST_BEAMS)
        among = self.widest if depth is None else self.widest[depth : depth + 1]
        children = max((-(-widest_K[known - 1] * beams // known) for widest_K in among), default=0)
        return max(LEAST_WIDTH, 1 << (children + beams - 1).bit_length())


def concat(tables: Sequence[TrieTable]) -> TrieTable:
    """One table of the tries of several; its roots are theirs, in order.

    Raises SettingsError where the tables were not made alike, and beyond 2**30 nodes.
    """
    if len({(t.eos_id, t.vocabulary_size, t.layout, t.first_key is None) for t in tables}) != 1:
        raise SettingsError(
            "tables: expected some with the same eos_id, vocabulary size and options"
        )
    after = list(accumulate(len(table.first_child) for table in tables))
    if after[-1] > MOST_NODES:
        raise SettingsError(
            f"tables: too many nodes for one: expected at most {MOST_NODES}, got {after[-1]}"
        )
    moved = [0, *after[:-1]]
    first_children, roots = [], []
    for table, place in zip(tables, moved, strict=True):
        first_children.append(table.first_child + 2 * place)
        roots.append(table.root_R + place)
    first_keys = [table.first_key for table in tables if table.first_key is not None]
    none = (0,) * MOST_BEAMS
    widest = []
    for of_tables in zip_longest(*(table.widest for table in tables), fillvalue=none):
        widest.append(tuple(map(max, zip(*of_tables, strict=True))))
    return replace(
        tables[0],
        first_child=torch.cat(first_children),
        label=torch.cat([table.label for table in tables]),
        first_key=torch.cat(first_keys) if first_keys else None,
        root_R=torch.cat(roots),
        depth=max(table.depth for table in tables),
        widest=tuple(widest),
    )


def _widest(trie: TokenTrie) -> tuple[tuple[int, ...], ...]:
    """See `TrieTable.widest`: the sums of the largest fan-outs of each depth."""
    first = trie.csr.first_child >> 1
    widest = []
    for start, end in pairwise(trie.bounds):
        largest = np.sort(np.diff(first[start : end + 1]))[::-1][:MOST_BEAMS]
        sums = np.cumsum(np.pad(largest, (0, MOST_BEAMS - len(largest))), dtype=np.int64)
        widest.append(tuple(sums.tolist()))
    return tuple(widest)
