"""Look-ahead: keys are favoured by how much of the row's question they cover.

A key is `subject [SEP] predicate [SEP] meaning`. With y what was written so far, Q the question, c
the keys of the trie and LCS the length of the longest common subsequence in tokens, coverage enters
in one of two ways:

    power   p(v) <- p(v) ** (1 / n_v)
            n_v = 1 + max over keys c that go on with y v of LCS(c, Q) - LCS(y, Q)
            once the subject is complete; before, and for an end, n = 1. p is then normalised among
            the legal tokens.

    sum     score(c) = log p(subject, predicate | Q) + log p(meaning | ..., legal)
                       - weight * (most - F(c))
            F as in `coverage`: what the tokens are worth that the subject, which stands in the
            question in one piece, and the predicate cover; `most` is the largest F of all keys. p
            of subject and predicate is that among all tokens: how likely a predicate is shows in
            all of it, not only where it parts from others. A meaning the trie has mostly decided
            by then, so that p is normalised among the legal tokens there, and there alone.

So it is with the norm "renorm", which the task takes. With "full" nothing is normalised among the
legal tokens: neither the powers nor the meaning.

On its way to the best sum a beam carries F(y), the largest F(c) of the keys that go on with y. So
no step adds to a score, and what a search finds with beams enough is the best of all keys.

The continuations are those of the table, and ranked as there. `sum` asks the device for nothing in
a step: all of it is compared before the first. `power` compares as subjects become complete, which
ones no one knows before, and waits for the device then.

Source: https://kexue.fm/archives/8802 and github.com/bojone/KgCLUE-bert4keras (power). Differs from
it: sum is ours.
Legend: B rows, K beams, N = B * K, V vocabulary, M continuations, T tokens of a question, S numbers
of a state: the node, the separators so far, and for `power` LCS(y, Q[:0]), ..., LCS(y, Q).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from nlpkit.decoding.constraint import Candidates, Norm
from nlpkit.decoding.top_candidates import take
from nlpkit.decoding.trie.continuations import (
    NEGATIVE_INFINITY,
    Continuations,
    log_sums,
    log_totals,
    logits_of,
    ranked,
)
from nlpkit.decoding.trie.table import TrieTable
from nlpkit.errors import SettingsError
from nlpkit.tasks.kgclue.coverage import Coverage


class LookAhead:
    """`Constraint`: the keys of a table, each row with a question of its own.

    Args:
        table: of one trie for all rows; its end is no token of a key.
        questions: the token ids of each row's question.
        separator: [SEP], which ends subject and predicate.
        weight: of a covered token that is worth 1, in nats, for `sum`; None for `power`.
        worth_V: what each token of the vocabulary is worth, for `sum`; None: 1 each.
    """

    def __init__(
        self,
        table: TrieTable,
        questions: Sequence[Sequence[int]],
        separator: int,
        weight: float | None = None,
        worth_V: torch.Tensor | None = None,
    ):
        self.table = table
        self.separator = separator
        self.weight = weight
        self.eos_id = table.eos_id
        stop = weight is not None
        self.coverage = Coverage(table, questions, separator, stop, worth_V)
        if weight is not None:
            self.coverage.add_named()

    def start(self, rows: int) -> torch.Tensor:
        """Nothing written: int64 (rows, 1, S). Raises SettingsError where there is another number
        of questions."""
        expected, width = self.coverage.question_BT.shape
        if rows != expected:
            raise SettingsError(f"look-ahead: expected {expected} rows, got {rows}")
        return pad(self.table.start(rows)[..., None], (0, 2 + width if self.weight is None else 1))

    @torch.no_grad()
    def step(
        self,
        logits_BKV: torch.Tensor,
        score_BK: torch.Tensor,
        state_BKS: torch.Tensor,
        count: int,
        norm: Norm = "full",
        depth: int | None = None,
    ) -> Candidates:
        """See `Constraint`, and the module for `norm`. The state of an end is its node."""
        rows, beams, _ = logits_BKV.shape
        logits_NV = logits_BKV.flatten(0, 1)
        state_NS = state_BKS.flatten(0, 1)
        node_N = state_NS[:, 0].masked_fill(score_BK.flatten() == NEGATIVE_INFINITY, -1)
        row_N = torch.arange(rows, device=node_N.device).repeat_interleave(beams)
        found = self.table.continuations(score_BK, state_BKS[..., 0], depth)
        logit_M = logits_of(found, logits_NV)
        total_N = log_totals(logits_NV)
        if self.weight is None:
            exponent_M = 1 + self._gains(found, row_N, node_N, state_NS)
            score_M = (logit_M - total_N[found.beam_M]) / exponent_M
            total_N = torch.zeros_like(total_N)  # taken off already
            is_renormed_N = torch.ones_like(node_N, dtype=torch.bool)
        else:
            score_M = logit_M - self.weight * self._losses(found, row_N, node_N, state_NS)
            is_renormed_N = state_NS[:, 1] > 1  # in the meaning, where nothing is lost
        if norm == "renorm":
            legal_N = log_sums(score_M, found.beam_M, len(node_N))
            total_N = torch.where(is_renormed_N, legal_N, total_N)
        return ranked(found, score_M, score_BK.float(), total_N, count)

    def _gains(
        self,
        found: Continuations,
        row_N: torch.Tensor,
        node_N: torch.Tensor,
        state_NS: torch.Tensor,
    ) -> torch.Tensor:
        """n - 1 of every continuation: (M,)."""
        label_N = self.table.label[node_N.clamp_min(0)]
        is_new_N = (node_N >= 0) & (state_NS[:, 1] == 1) & (label_N == self.separator)
        row_L = row_N[is_new_N]
        question_LT = self.coverage.question_BT[row_L]
        self.coverage.add(row_L, node_N[is_new_N], state_NS[is_new_N, 2:], question_LT)
        best_M = self.coverage.best(row_N[found.beam_M], found.child_M)
        gain_M = (best_M - state_NS[:, -1][found.beam_M]).clamp_min_(0)
        is_end_M = found.token_M == self.eos_id
        is_in_subject_M = (state_NS[:, 1] == 0)[found.beam_M]
        return gain_M.masked_fill_(is_end_M | is_in_subject_M, 0)

    def _losses(
        self,
        found: Continuations,
        row_N: torch.Tensor,
        node_N: torch.Tensor,
        state_NS: torch.Tensor,
    ) -> torch.Tensor:
        """F(y) - F(y v) of every continuation, 0 for a meaning: (M,)."""
        before_M = self.coverage.best(row_N, node_N)[found.beam_M]
        lost_M = before_M - self.coverage.best(row_N[found.beam_M], found.child_M)
        return lost_M.masked_fill_((state_NS[:, 1] > 1)[found.beam_M], 0)

    def follow(
        self, state_BKS: torch.Tensor, candidates: Candidates, chosen_BK: torch.Tensor
    ) -> torch.Tensor:
        """See `Constraint`. The states of the module docstring: (B, K', S)."""
        node_BK = candidates.state_BC.gather(1, chosen_BK)
        token_BK = candidates.token_BC.gather(1, chosen_BK)
        before_BKS = take(state_BKS, candidates.beam_BC.gather(1, chosen_BK))
        separators_BK = before_BKS[..., 1] + (token_BK == self.separator)
        state_BKS = torch.stack([node_BK, separators_BK], -1)
        if self.weight is not None:
            return state_BKS
        question_B1T = self.coverage.question_BT[:, None]
        lcs_BKT = self.coverage.extended(before_BKS[..., 2:], question_B1T, token_BK)
        return torch.cat([state_BKS, lcs_BKT], -1)
