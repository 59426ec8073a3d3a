"""From scores of spans to spans: those above a threshold, and their pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

# of a text and head that loose decoding goes on with at least; an untrained model has thousands
LOOSE_SPANS = 24


def spans_above(
    scores_BTT: torch.Tensor, threshold: float, loose: bool
) -> tuple[torch.Tensor, ...]:
    """(text, first token, last token, score) of the spans scored above the threshold, sorted by
    text.

    Loose decoding keeps those above 0 and, of the others, those among the LOOSE_SPANS best of the
    text.
    """
    if loose:
        flat_BX = scores_BTT.flatten(1)
        least_B1 = flat_BX.topk(min(LOOSE_SPANS, flat_BX.shape[1]), 1).values[:, -1:].clamp_max(0.0)
        scores_BTT = scores_BTT.masked_fill(scores_BTT < least_B1[:, :, None], float("-inf"))
    b_N, i_N, j_N = (scores_BTT > threshold).nonzero(as_tuple=True)
    return b_N, i_N, j_N, scores_BTT[b_N, i_N, j_N]


def with_rows(cells: Sequence[np.ndarray]) -> torch.Tensor:
    """(head, i, j) cells of each text as one tensor of (text, head, i, j): (N, 4)."""
    rows = np.repeat(np.arange(len(cells)), [len(some) for some in cells])
    return torch.from_numpy(np.column_stack([rows, np.concatenate(cells)]))


def pairs_in_rows(
    s_rows_S: torch.Tensor, o_rows_O: torch.Tensor, most: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Indices (N,) of subjects and (N,) of objects: all pairs of one text, in pieces of N <=
    `most`.

    Takes the text of every subject, (S,), and of every object, (O,), both sorted.
    """
    first_S = torch.searchsorted(o_rows_O, s_rows_S)
    end_S = torch.searchsorted(o_rows_O, s_rows_S, right=True)
    count_S = end_S - first_S
    ends_S = count_S.cumsum(0)
    for start in range(0, int(ends_S[-1]) if len(ends_S) else 0, most):
        pair_N = torch.arange(start, min(start + most, int(ends_S[-1])), device=s_rows_S.device)
        s_N = torch.searchsorted(ends_S, pair_N, right=True)
        yield s_N, first_S[s_N] + pair_N - (ends_S - count_S)[s_N]
