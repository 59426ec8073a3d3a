"""How much of a text a vocabulary covers."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import tokenizers

from nlpkit.jsonl import read_lines

SHOWN = 20


def coverage(backend: tokenizers.Tokenizer, path: str | Path) -> dict[str, Any]:
    """What share of the characters of a text file (UTF-8, also .gz or .xz) becomes tokens, and the
    most frequent of those that become [UNK], with how often they come.

    `characters` counts those that become tokens or [UNK]; white space is not among them. `covered`
    is None for a file without any. Raises DataError for a file that cannot be read.
    """
    unknown_id = backend.token_to_id("[UNK]")
    characters = 0
    uncovered: collections.Counter[str] = collections.Counter()
    for line in read_lines(path):
        text = line.text()
        encoded = backend.encode(text, add_special_tokens=False)
        for token_id, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
            characters += end - start
            if token_id == unknown_id:
                uncovered.update(text[start:end])
    share = 1 - uncovered.total() / characters if characters else None
    return {
        "characters": characters,
        "covered": None if share is None else round(share, 6),
        "uncovered": dict(uncovered.most_common(SHOWN)),
    }
