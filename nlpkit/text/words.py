"""The words around each character, from jieba: which word, what part of speech, where in it.

A word is a hash into a fixed number of buckets, so that there is no word list to keep; what a tag says of a word (a
person's name, a place, a firm) is the knowledge of jieba's dictionary and of its hidden Markov model for words that the
dictionary lacks.

jieba keeps a compiled dictionary in a cache file, which is put in a folder of the user's own.
"""

from __future__ import annotations

import logging
import os
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

BUCKETS = 1 << 16
FLAGS = [
    *("a", "ad", "ag", "an", "b", "bg", "c", "d", "df", "dg", "e", "en", "f", "g", "h", "i", "in", "j", "jn", "k"),
    *("l", "ln", "m", "mg", "mq", "n", "ng", "nr", "nrfg", "nrt", "ns", "nt", "nz", "o", "p", "q", "qe", "qg", "r"),
    *("rg", "rr", "rz", "s", "t", "tg", "u", "ud", "ug", "uj", "ul", "uv", "uz", "v", "vd", "vg", "vi", "vn", "vq"),
    *("w", "x", "y", "yg", "z", "zg"),
]  # jieba's, of its dictionary and its model
PLACES = 4  # begin, middle, end of a word, or a word of one character
TAGS = 1 + len(FLAGS) * 2 * PLACES  # 0 is none; a flag counts twice: in the dictionary, or guessed


def word_features(text: str) -> tuple[np.ndarray, np.ndarray]:
    """(word ids in [1, BUCKETS], tag ids in [1, TAGS)), one for each character of the text."""
    tagger, frequencies, flag_ids = _jieba()
    word_ids, tag_ids = np.zeros(len(text), dtype=np.int32), np.zeros(len(text), dtype=np.int32)
    start = 0
    for word, flag in tagger.cut(text):
        end = start + len(word)
        word_ids[start:end] = zlib.crc32(word.lower().encode()) % BUCKETS + 1
        known = bool(frequencies.get(word))
        first = 1 + (flag_ids.get(flag, flag_ids["x"]) * 2 + known) * PLACES
        tag_ids[start:end] = first + 1
        tag_ids[end - 1] = first + 2
        tag_ids[start] = first + (3 if end - start == 1 else 0)
        start = end
    return word_ids, tag_ids


def word_starts(tag_ids: Any) -> Any:
    """True where a word begins, and where there is no word; for arrays and tensors alike."""
    place = (tag_ids - 1) % PLACES
    return (tag_ids == 0) | (place == 0) | (place == 3)


@cache
def _jieba() -> tuple[Any, dict[str, int], dict[str, int]]:
    """(tagger, word frequencies, flag -> id)."""
    import jieba
    import jieba.posseg

    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nlpkit"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.tmp_dir = str(folder)
    except OSError:  # without a cache the dictionary is compiled at every start
        tokenizer.tmp_dir = os.devnull
    tokenizer.initialize()
    return _Tagger(jieba.posseg.POSTokenizer(tokenizer)), tokenizer.FREQ, {flag: i for i, flag in enumerate(FLAGS)}


class _Tagger:
    """jieba's tagger, giving (word, flag) pairs that together are the text."""

    def __init__(self, tagger: Any):
        self.tagger = tagger

    def cut(self, text: str) -> list[tuple[str, str]]:
        return [(pair.word, pair.flag) for pair in self.tagger.cut(text)]
