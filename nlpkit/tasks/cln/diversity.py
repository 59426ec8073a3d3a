r"""What generated texts are like as a set: how varied, how like one another, how much of them is
copied.

    distinct-n       different n-grams of characters / all n-grams of characters, over all texts
    self-BLEU        the mean over the texts of BLEU-4 with all other texts as its references:
                         BLEU = min(1, e^(1 - r / c)) (p_1 p_2 p_3 p_4)^(1/4)
                     c is the text's length, r that of the reference nearest to it (the shorter of
                     two), p_n the share of its n-grams that stand in a reference, each no more
                     often than in the one that has it most; where none does, 0.1 stand for their
                     number; of a text under four characters it is 0
    copied           the length of the longest string of characters that a text shares with one of
                     the training texts

Everything is exact, and counted in characters; no text is compared with another directly.

Source: distinct: Li et al. 2016, arxiv.org/abs/1510.03055; self-BLEU: Zhu et al. 2018,
arxiv.org/abs/1802.01886, and Papineni et al. 2002, aclanthology.org/P02-1040, with the first
smoothing of Chen and Cherry 2014, W14-3346.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

ORDERS = 4
SMOOTHING = 0.1
"""What counts for no n-gram in common."""


def distinct(texts: Sequence[str], order: int) -> float:
    """distinct-n of the texts; 0 where there is no n-gram."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_grams(text, order))
    return len(counts) / max(1, counts.total())


def self_bleu(texts: Sequence[str]) -> float:
    """self-BLEU of the texts; 0 of fewer than two."""
    if len(texts) < 2:
        return 0.0
    precisions = np.array([_precisions(texts, order) for order in range(1, ORDERS + 1)])
    with np.errstate(divide="ignore"):
        means = np.exp(np.log(precisions).mean(0))
    lengths = sorted(map(len, texts))
    return float(
        np.mean(
            [_brevity(len(text), lengths) * mean for text, mean in zip(texts, means, strict=True)]
        )
    )


def _grams(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))


def _precisions(texts: Sequence[str], order: int) -> list[float]:
    """p_n of every text with all others as references."""
    counts = [_grams(text, order) for text in texts]
    # the two highest counts of an n-gram in a text
    best: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for count in counts:
        for gram, number in count.items():
            best[gram] = sorted([*best[gram], number])[1:]

    def elsewhere(gram: str, number: int) -> int:
        second, first = best[gram]
        return second if number == first else first

    shared = []
    for count in counts:
        kept = [min(number, elsewhere(gram, number)) for gram, number in count.items()]
        shared.append(sum(kept))
    return [
        (number or SMOOTHING) / count.total() if count else 0.0
        for number, count in zip(shared, counts, strict=True)
    ]


def _brevity(length: int, lengths: Sequence[int]) -> float:
    """min(1, e^(1 - r / c)) of a text with the others as references; `lengths` are sorted, its own
    among them."""
    if length == 0:
        return 0.0
    place = bisect_left(lengths, length)
    others = [*lengths[max(0, place - 1) : place], *lengths[place + 1 : place + 2]]
    nearest = min(others, key=lambda other: (abs(other - length), other))
    return min(1.0, math.exp(1 - nearest / length))


def longest_copies(texts: Sequence[str], training: Sequence[str]) -> list[int]:
    """For every text the length of the longest string that it shares with one of the training
    texts.

    Strings of n + 1 characters are told apart by the number of their first n and their last
    character; after every n only the places of strings that both sides have go on.
    """
    codes_N, owner_N = _joined([*texts, *training])
    longest = np.zeros(len(texts), dtype=np.int64)
    place_M = np.flatnonzero(codes_N)
    number_M = np.zeros(np.count_nonzero(codes_N), dtype=np.int64)
    length = 0
    while len(place_M):
        key_M = number_M * 0x110001 + codes_N[place_M + length]
        _, number_M = np.unique(key_M, return_inverse=True)
        is_text_M = owner_N[place_M] < len(texts)
        shared = np.zeros((2, number_M.max() + 1), dtype=bool)
        shared[0, number_M[is_text_M]] = shared[1, number_M[~is_text_M]] = True
        keep_M = (shared[0] & shared[1])[number_M]
        length += 1
        longest[owner_N[place_M[keep_M & is_text_M]]] = length
        keep_M &= codes_N[place_M + length] != 0  # a string ends with its text
        place_M, number_M = place_M[keep_M], number_M[keep_M]
    return longest.tolist()


def _joined(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(code points + 1 of all texts, with 0 after each; the number of the text of every place)."""
    joined = "".join(f"{text}\0" for text in texts)
    codes_N = (
        np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64)
        + 1
    )
    ends = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64) - 1
    codes_N[ends] = 0
    return codes_N, np.repeat(np.arange(len(texts)), [len(text) + 1 for text in texts])
