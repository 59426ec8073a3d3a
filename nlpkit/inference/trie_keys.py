"""Lines of text as the keys of a trie, and keys as text again.

Texts of the same tokens are one key: they differ in letter case, width or space. Characters that
the vocabulary lacks are all [UNK], so texts that differ in nothing else would be one key too. They
are refused: no search could tell them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from nlpkit.decoding.trie.csr import MOST_TOKENS
from nlpkit.decoding.trie.token_trie import TokenTrie
from nlpkit.errors import DataError
from nlpkit.jsonl import Line, read_lines
from nlpkit.text.backend import vocabulary_hash
from nlpkit.text.folding import casefold
from nlpkit.text.tokenizer import Tokenizer

AT_ONCE = 4096  # lines tokenized together
SHOWN = 3  # places that a message names
_LATIN = re.compile(r"[A-Za-z0-9]")


@dataclass
class TextKeys:
    """The keys of a file, read once: `trie`. After that `empty` has the places of the lines without
    a token or without any width, which are no keys."""

    source: str | Path
    tokenizer: Tokenizer
    empty: list[str] = field(default_factory=list)
    _unknown: dict[tuple[int, ...], tuple[list[str], str]] = field(default_factory=dict)
    _clashes: list[str] = field(default_factory=list)

    def trie(self) -> TokenTrie:
        """The trie of all lines, equal ones once.

        Raises DataError for a line that is too long, and for lines that differ in nothing but
        characters that the vocabulary lacks; the message counts them and names the first.
        """
        backend = self.tokenizer.backend
        size = 1 + max(backend.get_vocab().values())
        trie = TokenTrie.from_sequences(self._keys(), size, vocabulary_hash(backend))
        if self._clashes:
            raise DataError(
                f"{self.source}: {len(self._clashes)} keys differ from others only in characters "
                f"that the vocabulary lacks: {', '.join(self._clashes[:SHOWN])}",
                hint="leave them out, or take a --tokenizer that has these characters",
            )
        return trie

    def _keys(self) -> Iterator[list[int]]:
        lines = read_lines(self.source)
        while chunk := list(islice(lines, AT_ONCE)):
            texts = [_checked_text(line) for line in chunk]
            encoded = self.tokenizer.backend.encode_batch(texts, add_special_tokens=False)
            for line, text, encoding in zip(chunk, texts, encoded, strict=True):
                has_no_width = not text.isprintable() and not casefold(text).text
                if not encoding.ids or has_no_width:
                    self.empty.append(line.where)
                    continue
                if self.tokenizer.unk_id in encoding.ids:
                    self._note_unknown(tuple(encoding.ids), text, line.where)
                yield encoding.ids

    def _note_unknown(self, key: tuple[int, ...], text: str, where: str) -> None:
        spans = self.tokenizer.unknown_spans(text)
        unknown = [text[start:end].casefold() for start, end in spans]
        others, other_where = self._unknown.setdefault(key, (unknown, where))
        if others != unknown:
            told = f'"{"".join(unknown)}" at {where} from "{"".join(others)}" at {other_where}'
            self._clashes.append(told)


def texts_of(keys: Iterable[Sequence[int]], tokenizer: Tokenizer) -> list[str]:
    """The text of each key: pieces of words (##) joined and, where the vocabulary has such, a space
    between two Latin words."""
    vocabulary = tokenizer.backend.get_vocab()
    tokens = {token_id: token for token, token_id in vocabulary.items()}
    has_pieces = any(token.startswith("##") and len(token) > 2 for token in vocabulary)
    texts = []
    for key in keys:
        text = ""
        for token in (tokens.get(token_id, "") for token_id in key):
            if has_pieces and token.startswith("##") and len(token) > 2:
                text += token[2:]
                continue
            is_word = has_pieces and _LATIN.match(token) and _LATIN.match(text[-1:])
            text += f" {token}" if is_word else token
        texts.append(text)
    return texts


def _checked_text(line: Line) -> str:
    text = line.text()
    if len(text) > MOST_TOKENS:
        raise DataError(
            f"{line.where}: too long for a key: expected at most {MOST_TOKENS} characters, "
            f"got {len(text)}"
        )
    return text
