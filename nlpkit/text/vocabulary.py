"""The vocabulary that ships: one token for each character, common ones by law and the rest by
frequency.

The common characters are level 1 of GB 2312 (3,755, simplified) and level 1 of Big5 (5,401,
traditional): the lists that the two standards sort by use, so that none of them is ever [UNK],
however rare it is in the texts counted.

A character is normalised first (NFKC, lower case, any white space to a space), so that full-width
and half-width letters, digits and punctuation share a row. Digits and Latin letters are tokens of
their own: every span of characters is a span of tokens.

    python -m nlpkit.text.vocabulary tokenizer.json 10000 TEXT...     # plain text, .gz or .xz
"""

from __future__ import annotations

import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from nlpkit.jsonl import read_lines

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ASCII = [chr(code) for code in range(0x20, 0x7F) if not chr(code).isupper()]


def common_characters() -> list[str]:
    """Level 1 of GB 2312 and of Big5, each character once."""
    rows = [("gb2312", 0xB0A1, 0xD7F9), ("big5", 0xA440, 0xC67E)]
    codes: list[str] = []
    for name, first, last in rows:
        numbers = range(first, last + 1)
        codes += [number.to_bytes(2, "big").decode(name, "ignore") for number in numbers]
    return list(
        dict.fromkeys(
            character for character in codes if len(character) == 1 and not character.isascii()
        )
    )


def build(texts: Iterable[str], size: int) -> list[str]:
    """At most `size` tokens: special ones, printable ASCII, common characters, then others by
    frequency.

    Ties go by code point; characters for private use are left out.
    """
    normalise = _normalizer().normalize_str
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalise(text))
    fixed = SPECIAL + ASCII + common_characters()
    others = (
        character
        for character in counts.keys() - set(fixed)
        if unicodedata.category(character) != "Co"
    )
    ranked = sorted(others, key=lambda character: (-counts[character], character))
    return (fixed + ranked)[:size]


def character_tokenizer(vocabulary: list[str]) -> Tokenizer:
    """A tokenizer with one token for each (normalised) character and offsets into the text as
    given."""
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return tokenizer


def _normalizer() -> normalizers.Normalizer:
    steps = [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s"), " ")]
    return normalizers.Sequence(steps)


def main(target: str, size: str, *paths: str) -> None:
    """Writes `tokenizer.json` from text files."""
    texts = (line.text() for path in paths for line in read_lines(path))
    character_tokenizer(build(texts, int(size))).save(target, pretty=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
