"""The highest scores of each row, whatever its width: of equal ones the first.

In bfloat16 many scores are equal, and which of them a beam search takes must not depend on what is
beside a row. Legend: B rows, X scores of a row, N the best, R rows with equal ones among them.
"""

from __future__ import annotations

import torch

NEGATIVE_INFINITY = float("-inf")


def first_best(score_BX: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(score_BN, index_BN) of the `count` highest scores of each row, best first; of scores that are
    equal in float32 the first, where they are above -inf.

    `topk` leaves open which of equal scores it takes: another width gives another one. On a GPU,
    where looking for equals would make the host wait, it is left so.
    """
    more = min(count + 1, score_BX.shape[1])
    best_BN, index_BN = score_BX.topk(more)
    if score_BX.device.type == "cpu":
        some_R = rows_with_equals(best_BN)
        if len(some_R):
            index_BN[some_R] = _first_of_equals(score_BX[some_R], more)
            best_BN = score_BX.gather(1, index_BN)
    return best_BN[:, :count], index_BN[:, :count]


def rows_with_equals(best_BN: torch.Tensor) -> torch.Tensor:
    """The rows in which two neighbours are equal and above -inf.

    By numpy, whose calls take a tenth of the time of torch's on a few numbers: every step asks.
    """
    numbers_BN = best_BN.detach().float().numpy()
    later_BN = numbers_BN[:, 1:]
    is_equal_BN = (later_BN == numbers_BN[:, :-1]) & (later_BN > NEGATIVE_INFINITY)
    return torch.from_numpy(is_equal_BN.any(1).nonzero()[0])


def _first_of_equals(score_RX: torch.Tensor, count: int) -> torch.Tensor:
    """Slower: index_RN of the highest scores, of equal ones the first."""
    bits_RX = score_RX.float().contiguous().view(torch.int32)
    # the bits of negative numbers, read as integers, are in the opposite order
    rank_RX = torch.where(bits_RX < 0, bits_RX ^ 0x7FFFFFFF, bits_RX).long()
    place_X = torch.arange(score_RX.shape[1], device=score_RX.device)
    return ((rank_RX << 32) - place_X).topk(count).indices
