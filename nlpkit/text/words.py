"""The words around each character, from jieba: which word, its part of speech in the dictionary,
where in it.

A word is a hash into a fixed number of buckets, so that there is no word list to keep. Its flag
says what jieba's dictionary knows of it: a person's name, a place, a firm; words that jieba only
guessed have none. (Tagging them too with `jieba.posseg` takes ten times as long and made no
measurable difference to relation extraction.)

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
    *(
        "a",
        "ad",
        "ag",
        "an",
        "b",
        "c",
        "d",
        "df",
        "dg",
        "e",
        "f",
        "g",
        "h",
        "i",
        "j",
        "k",
        "l",
        "m",
        "mg",
        "mq",
        "n",
    ),
    *(
        "ng",
        "nr",
        "nrfg",
        "nrt",
        "ns",
        "nt",
        "nz",
        "o",
        "p",
        "q",
        "r",
        "rg",
        "rr",
        "rz",
        "s",
        "t",
        "tg",
        "u",
        "ud",
    ),
    *("ug", "uj", "ul", "uv", "uz", "v", "vd", "vg", "vi", "vn", "vq", "x", "y", "z", "zg"),
]  # of jieba's dictionary
FLAG_IDS = {
    flag: index for index, flag in enumerate(FLAGS, 1)
}  # 0 is a word that is not in the dictionary
PLACES = 4  # begin, middle, end of a word, or a word of one character
TAGS = 1 + (1 + len(FLAGS)) * PLACES  # 0 is none


def word_features(text: str) -> tuple[np.ndarray, np.ndarray]:
    """(word ids in [1, BUCKETS], tag ids in [1, TAGS)), one for each character of the text."""
    cut, flags = _jieba()
    word_ids, tag_ids = np.zeros(len(text), dtype=np.int32), np.zeros(len(text), dtype=np.int32)
    start = 0
    for word in cut(text):
        end = start + len(word)
        word_ids[start:end] = zlib.crc32(word.lower().encode("utf-8", "replace")) % BUCKETS + 1
        begin = 1 + FLAG_IDS.get(flags.get(word, ""), 0) * PLACES
        tag_ids[start:end] = begin + 1
        tag_ids[end - 1] = begin + 2
        tag_ids[start] = begin + (3 if end - start == 1 else 0)
        start = end
    return word_ids, tag_ids


def word_lengths(text: str) -> list[int]:
    """The lengths of the words of a text in order, in characters; they add up to the text's."""
    return [len(word) for word in _jieba()[0](text)]


def word_starts(tag_ids: Any) -> Any:
    """True where a word begins, and where there is no word; for arrays and tensors alike."""
    place = (tag_ids - 1) % PLACES
    return (tag_ids == 0) | (place == 0) | (place == 3)


@cache
def _jieba() -> tuple[Any, dict[str, str]]:
    """(the function that cuts a text to words, word -> flag)."""
    import jieba

    jieba.setLogLevel(
        logging.CRITICAL
    )  # where its cache cannot be written it would log a traceback
    tokenizer = jieba.Tokenizer()
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nlpkit"
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.tmp_dir = str(folder)
    except (
        OSError,
        RuntimeError,
    ):  # no home; without a cache the dictionary is compiled at every start
        tokenizer.tmp_dir = os.devnull
    tokenizer.initialize()
    return tokenizer.cut, _flags_of_words(tokenizer)


def _flags_of_words(tokenizer: Any) -> dict[str, str]:
    """Word -> flag of the tokenizer's dictionary, whose lines are `word frequency flag`.

    `jieba.posseg` has the same table, and reads the dictionary twice for it."""
    with tokenizer.get_dict_file() as file:
        lines = file.read().decode("utf-8").split("\n")
    flags = {}
    for line in lines:
        if line.strip():
            word, _, flag = line.strip().split(" ")
            flags[word] = flag
    return flags
