"""How much of a question the keys of a trie cover: of a key `subject [SEP] predicate`

    F = |subject| + LCS(predicate, R)     R the question without the subject, at its first place

where the subject stands in the question in one piece, else 0. |y| is what the tokens of y are worth
together, and LCS what those of the common subsequence are worth for which it is most: with a worth
of 1 for each token their numbers. A predicate counts the same before its subject and behind it:
谁是雾灯的导演 asks for what 雾灯的导演是谁 asks for.

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

from nlpkit.decoding.trie.table import TrieTable


class Level(NamedTuple):
    """Nodes with what they cover, and the place of their parents in the level above."""

    row_L: torch.Tensor
    node_L: torch.Tensor
    covered_L: torch.Tensor
    parent_L: torch.Tensor


class Coverage:
    """Of the keys `subject [SEP] predicate [SEP] meaning` of one trie and a question for each row.

    `stop` leaves out what follows the predicate; `worth_V` says what each token of the vocabulary is
    worth, from 0, None: 1 each. Nothing is compared before `add` or `add_named`.
    """

    def __init__(
        self,
        table: TrieTable,
        questions: Sequence[Sequence[int]],
        separator: int,
        stop: bool,
        worth_V: torch.Tensor | None = None,
    ):
        self.table = table
        self.separator = separator
        self.stop = stop
        width = 1 + max(map(len, questions))  # never 0
        padded = [[*question, *[-1] * (width - len(question))] for question in questions]
        self.question_BT = torch.tensor(padded, device=table.first_child.device)
        if worth_V is None:
            worth_V = torch.ones(table.vocabulary_size, dtype=torch.int64)
        self.worth_V = worth_V.to(table.first_child.device)
        self._place_E = self.question_BT.new_zeros(0)
        self._best_E = self.worth_V.new_zeros(0)

    def best(self, row_X: torch.Tensor, node_X: torch.Tensor) -> torch.Tensor:
        """The most that a key below each node covers, (X,); 0 for nodes that were not compared."""
        if not len(self._place_E):
            return self.worth_V.new_zeros(row_X.shape)
        place_X = row_X * len(self.table.first_child) + node_X
        found_X = torch.searchsorted(self._place_E, place_X).clamp_max_(len(self._place_E) - 1)
        return self._best_E[found_X].masked_fill_(self._place_E[found_X] != place_X, 0)

    def add(
        self,
        row_L: torch.Tensor,
        node_L: torch.Tensor,
        lcs_LT: torch.Tensor,
        question_LT: torch.Tensor,
    ) -> torch.Tensor:
        """Compares all keys below nodes that stand behind a subject, each with a question of its
        own; (L,) the most that they cover."""
        levels = [Level(row_L, node_L, lcs_LT[:, -1].clone(), row_L)]
        while len(node_L):
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
            node_L = nodes.first_N[parent_L] + place_L
            row_L = row_L[parent_L]
            question_LT = question_LT[parent_L]
            lcs_LT = self.extended(lcs_LT[parent_L], question_LT, self.table.label[node_L])
            levels.append(Level(row_L, node_L, lcs_LT[:, -1].clone(), parent_L))
        return self._keep(levels)

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
        none_L = self.worth_V.new_zeros(rows)
        levels = [Level(row_L, node_L, none_L, row_L)]
        rests = [self.question_BT]
        goes_on_LT = self.question_BT >= 0
        place_T = torch.arange(width, device=node_L.device)
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
            goes_on_LT[first_J, place_J + 1] = True
            end_L1 = goes_on_LT.long().argmax(
                -1, keepdim=True
            )  # of the first place where it stands
            is_string_LT = (place_T < end_L1) & (place_T >= end_L1 - len(levels))
            rests.append(self.question_BT[row_L].masked_fill(is_string_LT, -1))
            none_L = self.worth_V.new_zeros(len(node_L))
            levels.append(Level(row_L, node_L, none_L, parent_L))
            goes_on_LT &= self.question_BT[row_L] >= 0
        all_levels = Level(*map(torch.cat, zip(*levels, strict=True)))  # compared in one go
        covered_L = self._covered(all_levels.row_L, all_levels.node_L, torch.cat(rests))
        parts = covered_L.split([len(level.node_L) for level in levels])
        self._keep(
            [level._replace(covered_L=part) for level, part in zip(levels, parts, strict=True)]
        )

    def _covered(
        self, row_L: torch.Tensor, node_L: torch.Tensor, rest_LT: torch.Tensor
    ) -> torch.Tensor:
        """The most that the keys of subjects that end at the nodes cover, 0 where none ends."""
        behind_L = self.table.advance(node_L, torch.full_like(node_L, self.separator))
        is_subject_L = behind_L >= 0
        row_S = row_L[is_subject_L]
        rest_ST = rest_LT[is_subject_L]
        question_ST = self.question_BT[row_S]
        worth_ST = self.worth_V[question_ST.clamp_min(0)]
        subject_S1 = worth_ST.masked_fill(rest_ST == question_ST, 0).sum(-1, keepdim=True)
        lcs_ST = subject_S1.expand(-1, rest_ST.shape[1] + 1)
        covered_L = self.worth_V.new_zeros(len(node_L))
        covered_L[is_subject_L] = self.add(row_S, behind_L[is_subject_L], lcs_ST, rest_ST)
        return covered_L

    def _keep(self, levels: list[Level]) -> torch.Tensor:
        """Takes the best up the levels, keeps them, and returns those of the first."""
        for level, above in zip(levels[:0:-1], levels[-2::-1], strict=True):
            above.covered_L.scatter_reduce_(0, level.parent_L, level.covered_L, "amax")
        places = [level.row_L * len(self.table.first_child) + level.node_L for level in levels]
        self._place_E, order_E = torch.cat([self._place_E, *places]).sort()
        best = [level.covered_L for level in levels]
        self._best_E = torch.cat([self._best_E, *best])[order_E]
        return levels[0].covered_L

    def extended(
        self, lcs_XT: torch.Tensor, question_XT: torch.Tensor, token_X: torch.Tensor
    ) -> torch.Tensor:
        """LCS(y v, Q[:t]) for t = 0, 1, ... from LCS(y, Q[:t]), where v is `token_X`; one more of
        them than tokens. What all of them have more, the first has, stays."""
        covers_XT = question_XT == token_X[..., None]
        longer_XT = lcs_XT[..., :-1] + self.worth_V[token_X.long()][..., None]
        longer_XT = torch.where(covers_XT, longer_XT, lcs_XT[..., 1:])
        return torch.cat([lcs_XT[..., :1], longer_XT], -1).cummax(-1).values
