"""Exact match and F1 as the evaluation script of CMRC 2018 counts them.

    gold "1921年建成", prediction "建于1921年"
    segments 1921 年 建 成 and 建 于 1921 年, longest common run 1921 年
    precision 2/4, recall 2/4, F1 = 2PR / (P + R) = 0.5

A text becomes segments: every Chinese character is one, what stands between them is cut into words
as of English, punctuation is left out. What two lists of segments have in common is their longest
common substring, so order counts; each question counts its best accepted answer. Two answers match
exactly where they are equal in lower case without punctuation; other spaces and full width count.

Source: cmrc2018_evaluate.py of https://github.com/ymcui/cmrc2018 (mixed_segmentation, find_lcs,
calc_f1_score, calc_em_score).
Differs from it: it cuts words by NLTK, which is not needed here, so contractions stay whole; and
two answers that are both empty match, since in that set every question has an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
"""What the script leaves out. The two characters of an ellipsis are in its list as one string, so
that it leaves none of them out."""

_CHINESE = re.compile("[\\u4e00-\\u9fa5]")
_WORD = re.compile(r"[;@#$%&?!()\[\]{}<>\"]|\.{2,}|,(?!\d)|(?:[^\s;@#$%&?!()\[\]{}<>\",]|,(?=\d))+")


def segments(text: str) -> list[str]:
    """Chinese characters and words of a text, in lower case, without punctuation."""
    found: list[str] = []
    between = ""
    for character in text.lower().strip():
        if character in PUNCTUATION:
            continue
        if _CHINESE.match(character):
            found += [*_words(between), character]
            between = ""
        else:
            between += character
    return [*found, *_words(between)]


def _words(text: str) -> list[str]:
    """The words of a text as of English; a full stop at its end is a word."""
    words = _WORD.findall(text)
    if words and len(words[-1]) > 1 and words[-1].endswith(".") and words[-1].strip("."):
        words[-1:] = [words[-1][:-1], "."]
    return words


def without_punctuation(text: str) -> str:
    """What an exact match compares."""
    return "".join(c for c in text.lower().strip() if c not in PUNCTUATION)


def longest_common_run(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest run of segments that two lists have in common."""
    longest = 0
    ending_here = [0] * (len(second) + 1)  # length of the run that ends at each segment of second
    for segment in first:
        before = ending_here
        ending_here = [0] * (len(second) + 1)
        for index, other in enumerate(second):
            if segment == other:
                ending_here[index + 1] = before[index] + 1
        longest = max(longest, *ending_here)
    return longest


def cmrc_exact_match(accepted: Sequence[str], answer: str) -> bool:
    """Whether an answer is one of the accepted."""
    return without_punctuation(answer) in map(without_punctuation, accepted)


def cmrc_f1(accepted: Sequence[str], answer: str) -> float:
    """The best F1 over the accepted answers, at least one; 1 where an accepted one and the answer
    are both empty."""
    return max(_f1(segments(gold), segments(answer)) for gold in accepted)


def _f1(gold: Sequence[str], answer: Sequence[str]) -> float:
    if not gold or not answer:
        return float(gold == answer)
    return 2 * longest_common_run(gold, answer) / (len(gold) + len(answer))
