"""The best of a few continuations per beam: the last part of `step`, for constraints that can list
what could be legal.

Such a constraint lists S tokens that could be legal for some beam: all V tokens, the distinct
tokens of a passage, the symbols of an equation. A token that is not legal for a beam gets the logit
-inf there.
Legend: B rows, K beams, S tokens that could be legal, V vocabulary, C candidates; X stands for any
number of dimensions.
"""

from __future__ import annotations

import torch

from nlpkit.decoding.best import NEGATIVE_INFINITY, first_best
from nlpkit.decoding.constraint import Candidates, Norm
from nlpkit.decoding.trie.continuations import log_totals


def top_candidates(
    legal_BKS: torch.Tensor,
    logits_BKV: torch.Tensor,
    score_BK: torch.Tensor,
    count: int,
    norm: Norm,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(score_BC, beam_BC, place_BC) of the `count` best continuations of every row, best first;
    score -inf, beam 0, place 0 where none is.

    `legal_BKS` are the logits of what could be legal, -inf where it is not; `place_BC` counts along
    S. They are normalised by all of `logits_BKV` ("full") or among themselves ("renorm").
    """
    legal_BKS = legal_BKS.float()
    if norm == "renorm":
        total_BK = legal_BKS.logsumexp(-1)
    else:
        total_N = log_totals(logits_BKV.flatten(0, 1))
        total_BK = total_N.view(score_BK.shape)
    total_BK = total_BK.clamp_min(
        torch.finfo(torch.float32).min
    )  # where nothing is legal, -inf rather than NaN
    score_BX = (legal_BKS + (score_BK - total_BK)[..., None]).flatten(1)
    score_BC, index_BC = first_best(score_BX, min(count, score_BX.shape[1]))
    index_BC = index_BC.masked_fill(score_BC == NEGATIVE_INFINITY, 0)
    missing = (0, count - score_BC.shape[1])
    score_BC = torch.nn.functional.pad(score_BC, missing, value=NEGATIVE_INFINITY)
    index_BC = torch.nn.functional.pad(index_BC, missing)
    return score_BC, index_BC // legal_BKS.shape[2], index_BC % legal_BKS.shape[2]


def candidates(
    score_BC: torch.Tensor, beam_BC: torch.Tensor, token_BC: torch.Tensor, state_BC: torch.Tensor
) -> Candidates:
    """Candidates of four tensors (B, C), with token and state -1 where the score is -inf."""
    none_BC = score_BC == NEGATIVE_INFINITY
    return Candidates(
        score_BC, beam_BC, token_BC.masked_fill(none_BC, -1), state_BC.masked_fill(none_BC, -1)
    )


def take(values_BKX: torch.Tensor, index_BK: torch.Tensor) -> torch.Tensor:
    """values[b, index[b, k]], whatever dimensions follow the first two."""
    row_B1 = torch.arange(len(index_BK), device=index_BK.device)[:, None]
    return values_BKX[row_B1, index_BK]
