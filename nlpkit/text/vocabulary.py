"""The vocabulary that ships: one token for each character, chosen by frequency.

A character is normalised first (NFKC, lower case, any white space to a space), so that full-width and half-width
letters, digits and punctuation share a row. Digits and Latin letters are tokens of their own: every span of
characters is a span of tokens.

    python -m nlpkit.text.vocabulary tokenizer.json 9000 TEXT...     # plain text, .gz or .xz
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from nlpkit.jsonl import read_lines

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ASCII = [chr(code) for code in range(0x20, 0x7F) if not chr(code).isupper()]


def build(texts: Iterable[str], size: int) -> list[str]:
    """At most `size` tokens: the special ones, printable ASCII, then characters by frequency (ties by code point)."""
    normalise = _normalizer().normalize_str
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalise(text))
    fixed = SPECIAL + ASCII
    ranked = sorted(counts.keys() - set(fixed), key=lambda character: (-counts[character], character))
    return fixed + ranked[: max(0, size - len(fixed))]


def character_tokenizer(vocabulary: list[str]) -> Tokenizer:
    """A tokenizer with one token for each (normalised) character and offsets into the text as given."""
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
    texts = (line.raw.decode("utf-8", "replace") for path in paths for line in read_lines(path))
    character_tokenizer(build(texts, int(size))).save(target, pretty=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
