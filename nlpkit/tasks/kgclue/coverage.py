"""How much of a question the keys of a trie cover: the longest common subsequence (LCS) with it, in
tokens.

What is asked for is the most that any key below a node covers. Nodes are compared a level at a
time, those of all rows together: a node's LCS(y, Q[:t]) of every t is made from its parent's in one
pass, and the best goes back up the levels. A node is kept with its row as one number, in sorted
order.

Legend: B rows, T tokens of a question, L nodes of a level, E nodes kept, J places of questions, X
any number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from nlpkit.decoding.trie.table import TrieTable


class Level(NamedTuple):
    """Nodes with what they cover, and the place of their parents in the level above."""

    row_L: torch.Tensor
    node_L: torch.Tensor
    lcs_LT: torch.Tensor
    parent_L: torch.Tensor


class Coverage:
    """Of the keys `subject [SEP] predicate [SEP] meaning` of one trie and a question for each row.

    `stop` leaves out what follows the predicate. Nothing is compared before `add` or `add_named`.
    """

    def __init__(
        self, table: TrieTable, questions: Sequence[Sequence[int]], separator: int, stop: bool
    ):
        self.table = table
        self.separator = separator
        self.stop = stop
        width = 1 + max(map(len, questions))  # never 0
        padded = [[*question, *[-1] * (width - len(question))] for question in questions]
        self.question_BT = torch.tensor(padded, device=table.first_child.device)
        self._place_E = self._best_E = torch.zeros(
            0, dtype=torch.int64, device=table.first_child.device
        )

    def best(self, row_X: torch.Tensor, node_X: torch.Tensor) -> torch.Tensor:
        """The most tokens that a key below each node covers, (X,); 0 for nodes that were not
        compared."""
        if not len(self._place_E):
            return torch.zeros_like(row_X)
        place_X = row_X * len(self.table.first_child) + node_X
        found_X = torch.searchsorted(self._place_E, place_X).clamp_max_(len(self._place_E) - 1)
        return self._best_E[found_X].masked_fill_(self._place_E[found_X] != place_X, 0)

    def add(self, row_L: torch.Tensor, node_L: torch.Tensor, lcs_LT: torch.Tensor) -> torch.Tensor:
        """Compares all keys below nodes that stand behind a subject; (L,) the most that they
        cover."""
        levels = [Level(row_L, node_L, lcs_LT, row_L)]
        while len(levels[-1].node_L):
            row_L, node_L, lcs_LT, _ = levels[-1]
            nodes = self.table.nodes(node_L)
            is_last_L = (self.table.label[node_L] == self.separator) & (
                self.stop and len(levels) > 1
            )
            fan_L = nodes.fan_N.masked_fill(is_last_L, 0)
            parent_L = torch.arange(len(node_L), device=node_L.device).repeat_interleave(fan_L)
            place_L = (
                torch.arange(len(parent_L), device=node_L.device)
                - (fan_L.cumsum(0) - fan_L)[parent_L]
            )
            child_L = nodes.first_N[parent_L] + place_L
            row_L = row_L[parent_L]
            lcs_LT = extended(lcs_LT[parent_L], self.question_BT[row_L], self.table.label[child_L])
            levels.append(Level(row_L, child_L, lcs_LT, parent_L))
        return self._keep(levels, [level.lcs_LT[:, -1].clone() for level in levels])

    def add_named(self) -> None:
        """Compares the keys of all subjects that stand in the row's question, in one piece.

        The question is looked up in the trie from all its places at once. Level by level a node is
        a string that stands somewhere in the question, and `goes_on_LT` says at which tokens it
        could go on: behind each of its occurrences. At the root these are all tokens. So a string
        that stands there twice is one node, and its keys are compared once.
        """
        rows, width = self.question_BT.shape
        row_L = torch.arange(rows, device=self.question_BT.device)
        node_L = self.table.start(rows)[:, 0]
        lcs_LT = self.question_BT.new_zeros(rows, width + 1)
        levels = [Level(row_L, node_L, lcs_LT, row_L)]
        goes_on_LT = self.question_BT >= 0
        while len(node_L):
            # One J for each node and place where it may go on; it stays where the trie has a child.
            from_J, place_J = goes_on_LT.nonzero().T
            child_J = self.table.advance(node_L[from_J], self.question_BT[row_L[from_J], place_J])
            from_J, place_J, child_J = (x_J[child_J >= 0] for x_J in (from_J, place_J, child_J))
            # (row, node) as one number: those that were reached at several places become one node.
            # Any of them will do as the parent, since a node has one parent.
            pair_L, first_J = (row_L[from_J] * len(self.table.first_child) + child_J).unique(
                return_inverse=True
            )
            parent_L = torch.zeros_like(pair_L).scatter_(0, first_J, from_J)
            row_L, node_L = row_L[parent_L], pair_L % len(self.table.first_child)
            # Each goes on one token further. The last place of all is padding, where nothing does.
            goes_on_LT = torch.zeros(len(node_L), width, dtype=torch.bool, device=node_L.device)
            goes_on_LT[first_J, (place_J + 1).clamp_max(width - 1)] = True
            goes_on_LT &= self.question_BT[row_L] >= 0
            lcs_LT = extended(
                levels[-1].lcs_LT[parent_L], self.question_BT[row_L], self.table.label[node_L]
            )
            levels.append(Level(row_L, node_L, lcs_LT, parent_L))
        all_levels = Level(*map(torch.cat, zip(*levels, strict=True)))  # compared in one go
        self._keep(
            levels, list(self._behind(all_levels).split([len(level.node_L) for level in levels]))
        )

    def _behind(self, level: Level) -> torch.Tensor:
        """The most that the keys of subjects that end at the nodes cover, 0 where none ends."""
        behind_L = self.table.advance(level.node_L, torch.full_like(level.node_L, self.separator))
        is_subject_L = behind_L >= 0
        best_L = torch.zeros_like(behind_L)
        best_L[is_subject_L] = self.add(
            level.row_L[is_subject_L], behind_L[is_subject_L], level.lcs_LT[is_subject_L]
        )
        return best_L

    def _keep(self, levels: list[Level], best: list[torch.Tensor]) -> torch.Tensor:
        """Takes the best up the levels, keeps them, and returns those of the first."""
        for (*_, parent_L), below_L, best_L in zip(
            levels[:0:-1], best[:0:-1], best[-2::-1], strict=True
        ):
            best_L.scatter_reduce_(0, parent_L, below_L, "amax")
        places = [level.row_L * len(self.table.first_child) + level.node_L for level in levels]
        self._place_E, order_E = torch.cat([self._place_E, *places]).sort()
        self._best_E = torch.cat([self._best_E, *best])[order_E]
        return best[0]


def extended(
    lcs_XT: torch.Tensor, question_XT: torch.Tensor, token_X: torch.Tensor
) -> torch.Tensor:
    """LCS(y v, Q[:t]) for t = 0, 1, ... from LCS(y, Q[:t]), where v is `token_X`; one more of them
    than tokens."""
    covers_XT = question_XT == token_X[..., None]
    return pad(
        torch.where(covers_XT, lcs_XT[..., :-1] + 1, lcs_XT[..., 1:]).cummax(-1).values, (1, 0)
    )
