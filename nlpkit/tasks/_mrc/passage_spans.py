"""The best spans of a passage where every position is scored at once, as masked language models do:
exact, no beam.

The positions do not depend on one another, so the span of l tokens that starts at place s has,
with log-probabilities lp[i, token],

    score(s, l) = sum_{i < l} lp[i, passage[s + i]] + lp[l, end]

and with `length_normalised` divided by l + 1.
All of them are sums along the diagonals of lp[i, passage[j]]. What stands at several places comes
several times. Positions that do not know of one another share out their probability anew at each:
the sum is hard on long spans.

Source: https://kexue.fm/archives/7148.
Differs from it: the best of all spans; there they are walked through greedily, which `Positions`
does in a search.
Legend: B rows, L positions (an end can stand at the last, a token cannot), V vocabulary, P places
of the passages, W width of a padded row, N best spans, X all spans of a row, K beams.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nlpkit.decoding.best import NEGATIVE_INFINITY, first_best


@torch.no_grad()
def best_spans(
    log_probs_BLV: torch.Tensor,
    passages: Sequence[Sequence[int]],
    eos_id: int,
    count: int = 1,
    *,
    length_normalised: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(score_BN, start_BN, length_BN) of the `count` best spans of each row's passage, best first.

    Starts and lengths are in tokens; a span has 1 to L - 1 of them. Of equal scores the shorter
    span comes first, then the one before: a token that stands twice has one score. Where a passage has fewer
    spans than `count`, the score is -inf and start and length mean nothing.
    """
    rows, positions, _ = log_probs_BLV.shape
    tokens = [torch.tensor(passage, dtype=torch.int64) for passage in passages]
    token_BP = torch.nn.utils.rnn.pad_sequence(tokens, True, eos_id).to(log_probs_BLV.device)
    places = token_BP.shape[1]
    at_BLP = log_probs_BLV.gather(2, token_BP[:, None].expand(-1, positions, -1))
    at_BLP = at_BLP.masked_fill((token_BP == eos_id)[:, None], NEGATIVE_INFINITY)
    sum_BLP = _diagonals(at_BLP)[:, :-1].cumsum(1)
    score_BLP = sum_BLP + log_probs_BLV[:, 1:, eos_id, None]
    if length_normalised:
        score_BLP /= torch.arange(2, positions + 1, device=score_BLP.device)[:, None]
    score_BX = score_BLP.flatten(1)
    score_BN, index_BN = first_best(score_BX, min(count, score_BX.shape[1]))
    missing = (0, count - score_BN.shape[1])
    index_BN = torch.nn.functional.pad(index_BN, missing)
    score_BN = torch.nn.functional.pad(score_BN, missing, value=NEGATIVE_INFINITY)
    return score_BN, index_BN % max(1, places), index_BN // max(1, places) + 1


def _diagonals(at_BLP: torch.Tensor) -> torch.Tensor:
    """diagonal_BLP[:, i, s] = at_BLP[:, i, s + i], and -inf beyond the end of the passage.

    A column of it is a span that starts at place s. Nothing is copied but the padded rows: in their
    memory the next entry of a diagonal lies one row of `width` and one place further, so that a
    stride of width + 1 from position to position walks along it. L entries of padding keep the last
    diagonal within its own row.
    """
    rows, positions, places = at_BLP.shape
    width = places + positions
    padded_BLW = torch.nn.functional.pad(at_BLP, (0, positions), value=NEGATIVE_INFINITY)
    strides = (positions * width, width + 1, 1)
    return padded_BLW.contiguous().as_strided((rows, positions, places), strides)


class Positions:
    """`Model` for a search: position i is scored by `scores_BLV[:, i]`, whatever was written before
    it."""

    def __init__(self, scores_BLV: torch.Tensor):
        self.scores_BLV = scores_BLV
        self.steps = 0

    def first(self) -> torch.Tensor:
        """The scores of position 0: (B, V)."""
        self.steps = 0
        return self.scores_BLV[:, 0]

    def next(self, token_BK: torch.Tensor, beam_BK: torch.Tensor) -> torch.Tensor:
        """The scores of the next position, the same for all beams: (B, K, V)."""
        self.steps += 1
        return self.scores_BLV[:, self.steps, None].expand(-1, token_BK.shape[1], -1)
