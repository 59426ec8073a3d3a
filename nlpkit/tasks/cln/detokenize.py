"""From tokens back to text as people wrote it: a token is written as the character that it most
often stood for.

A tokenizer takes ， and , for one token; which of them is meant is told by how often each stood in
the training text. So it is with white space, where a vocabulary has a token for it: a line break
and a space are one token, and the commoner of the two is written for both. A token of its own would
keep them apart, but it would move the ids of a published vocabulary, and no pretrained weights
would know it. The check of the data tells of each such text instead.

Between two Latin words of a vocabulary with pieces of words (##) stands a space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from nlpkit.text.tokenizer import Tokenizer

_SPECIAL = re.compile(r"\[\w+\]")
_LATIN = re.compile(r"[A-Za-z0-9]+")


class Writing:
    """The tokens of a tokenizer as strings; `characters` counts those of the text that is to be
    written like."""

    def __init__(self, tokenizer: Tokenizer, characters: Mapping[str, int]):
        self.tokenizer = tokenizer
        vocabulary = tokenizer.backend.get_vocab()
        self.strings = {index: token.removeprefix("##") for token, index in vocabulary.items()}
        self.special = [index for token, index in vocabulary.items() if _SPECIAL.fullmatch(token)]
        self._pieces = {index for token, index in vocabulary.items() if token.startswith("##")}
        for character, _ in sorted(characters.items(), key=lambda pair: (pair[1], pair[0])):
            token_ids = tokenizer.token_ids(character)
            if len(token_ids) == 1 and token_ids[0] not in self.special:
                self.strings[token_ids[0]] = character

    def ids(self, strings: Iterable[str]) -> list[int]:
        """The tokens that are written as one of these strings and stand for themselves."""
        wanted = set(strings)
        return [
            i for i, string in self.strings.items() if string in wanted and i not in self._pieces
        ]

    def text(self, token_ids: Sequence[int], begun: str = "") -> str:
        """What is begun and the tokens after it, as text."""
        parts = [begun]
        for index in token_ids:
            string = self.strings[index]
            words = self._pieces and _LATIN.fullmatch(string) and _LATIN.fullmatch(parts[-1][-1:])
            parts.append(f" {string}" if words and index not in self._pieces else string)
        return "".join(parts)
