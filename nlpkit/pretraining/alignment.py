"""Which tokens of a block lie under the pieces that another tokenizer cuts its text into.

A block is kept as tokens, so its text is put together from them. Pieces and tokens are then spans
of characters of one text, and a piece covers the tokens that share a character with it.
N tokens, P pieces, K tokens of all pieces together.
"""

from __future__ import annotations

import numpy as np
import tokenizers

UNREADABLE = "□"
"""Stands for [UNK] and other tokens that are no text: the sign that Chinese printers put where a
character cannot be read."""


class BlockTexts:
    """The texts of blocks of tokens of a tokenizer."""

    def __init__(self, backend: tokenizers.Tokenizer):
        vocabulary = backend.get_vocab()
        self.separator = vocabulary["[SEP]"]
        continued = getattr(backend.model, "continuing_subword_prefix", None) or "##"
        self.strings = [UNREADABLE] * (1 + max(vocabulary.values()))
        for token, token_id in vocabulary.items():
            is_special = token.startswith("[") and token.endswith("]") and len(token) > 2
            if not is_special:
                self.strings[token_id] = token.removeprefix(continued) or token
        self.strings[self.separator] = "\n"

    def text(self, ids_N: np.ndarray, begins_N: np.ndarray) -> tuple[str, np.ndarray]:
        """(text, spans_N2): the text of a block and the characters of every token, half-open.

        `begins_N` says where words begin. Two letters or digits of ASCII with such a place between
        them had a space there that is no token. A [SEP] is a line end; no character is its own.
        """
        strings: list[str] = []
        spans_N2 = np.zeros((len(ids_N), 2), np.int64)
        length = 0
        before = ""
        for index, token_id in enumerate(ids_N.tolist()):
            string = self.strings[token_id]
            if begins_N[index] and _is_ascii_word(before) and _is_ascii_word(string[:1]):
                strings.append(" ")
                length += 1
            strings.append(string)
            end = length + len(string)
            spans_N2[index] = length, length if token_id == self.separator else end
            length = end
            before = string[-1:]
        return "".join(strings), spans_N2


def covered_tokens(spans_N2: np.ndarray, pieces_P2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(counts_P, tokens_K): how many tokens share a character with each piece, and which, one piece
    after the other.

    Both are spans of characters, half-open; those of tokens are in order and do not overlap. An
    empty span shares nothing.
    """
    tokens_M = np.flatnonzero(spans_N2[:, 0] < spans_N2[:, 1])
    first_P = np.searchsorted(spans_N2[tokens_M, 1], pieces_P2[:, 0], "right")
    end_P = np.searchsorted(spans_N2[tokens_M, 0], pieces_P2[:, 1], "left")
    is_empty_P = pieces_P2[:, 0] >= pieces_P2[:, 1]
    counts_P = np.where(is_empty_P, 0, np.maximum(end_P - first_P, 0))
    before_P = np.cumsum(counts_P) - counts_P
    index_K = np.arange(counts_P.sum()) + np.repeat(first_P - before_P, counts_P)
    return counts_P, tokens_M[index_K]


def _is_ascii_word(character: str) -> bool:
    return character.isascii() and character.isalnum()
