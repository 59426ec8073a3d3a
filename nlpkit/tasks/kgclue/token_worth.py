"""How much it tells that a key covers a token of the question: its inverse document frequency.

    worth(v) = log((N + 1) / (n_v + 1)) / log(N + 1)

    N     training questions
    n_v   those of them that have the rarest character of v

So a character that every question has is worth 0, and one that none has is worth 1. What frames a
question (请问, 是什么, 什么时候) stands in many of them: no key is preferred for a name or a predicate
that only the frame holds. Characters are counted in place of tokens, so that the counts are those
of any vocabulary. They are counted in NFKC and lower case, as some vocabularies have them.

Source: Spärck Jones 1972, A statistical interpretation of term specificity and its application in
retrieval.
Legend: V vocabulary.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from nlpkit.text.tokenizer import Tokenizer

GRID = 2**14
"""Worths of tokens are whole multiples of 1 / GRID: float32 then holds the sum of up to 1,024 of
them exactly, so that it does not depend on the order, by which padding changes it otherwise."""


@dataclass(frozen=True)
class CharacterCounts:
    """Of questions: how many there are, and how many have each character, as `plain` writes it."""

    questions: int = 0
    having: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, questions: Iterable[str]) -> CharacterCounts:
        """Counts each question once for each of its characters."""
        having: Counter[str] = Counter()
        number = 0
        for question in questions:
            number += 1
            having.update(set(plain(question)))
        return cls(number, dict(having))

    def worth(self, string: str) -> float:
        """From 0 to 1, that of the rarest character; 1 of an empty string, and of all where no
        question was counted."""
        if not self.questions:
            return 1.0
        rarest = min((self.having.get(character, 0) for character in plain(string)), default=0)
        return 1 - math.log1p(rarest) / math.log1p(self.questions)


def plain(string: str) -> str:
    """In NFKC and lower case: ？ is ?."""
    return unicodedata.normalize("NFKC", string).lower()


def token_worths(counts: CharacterCounts, tokenizer: Tokenizer) -> torch.Tensor:
    """float32 (V,) of all tokens of a vocabulary, to the nearest 1 / GRID; ## in front of a piece
    does not count."""
    vocabulary = tokenizer.backend.get_vocab()
    worth_V = torch.ones(1 + max(vocabulary.values()))
    for string, token_id in vocabulary.items():
        worth = counts.worth(string.removeprefix("##"))
        worth_V[token_id] = round(worth * GRID) / GRID
    return worth_V
