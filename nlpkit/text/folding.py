"""The form under which names are looked up: full-width and half-width, upper and lower case, spaced
or not are one.

    "Ｇａｌａｘｙ S8"  -->  "galaxys8"

Each of its characters knows the character of the text that it came from.
A character becomes its NFKC form in folded case; white space and what has no width are left out.
What is found in the casefolded text is told in the text as given: a span counts only where both its
edges fall between characters of the text.

Source: https://www.unicode.org/reports/tr15/ (NFKC),
https://www.unicode.org/Public/UCD/latest/ucd/CaseFolding.txt.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from nlpkit.text.tokenizer import Span


@dataclass(frozen=True)
class Casefolded:
    """A casefolded text; `source` has, for each of its characters, the place of the character it
    came from."""

    text: str
    source: list[int]

    def span(self, start: int, end: int) -> Span | None:
        """`[start, end)` of the casefolded text in the text as given; None where an edge falls
        inside a character."""
        source = self.source
        if not 0 <= start < end <= len(source):
            return None
        inside = (start > 0 and source[start - 1] == source[start]) or (
            end < len(source) and source[end - 1] == source[end]
        )
        return None if inside else (source[start], source[end - 1] + 1)


def casefold(text: str) -> Casefolded:
    """The text in the form of the module docstring, with the place of every character."""
    parts = [casefold_character(character) for character in text]
    return Casefolded("".join(parts), [place for place, part in enumerate(parts) for _ in part])


@lru_cache(maxsize=1 << 16)
def casefold_character(character: str) -> str:
    """What a character becomes: none, one or several."""
    if "\ud800" <= character <= "\udfff":  # half a character, which no file can hold
        return "\ufffd"
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", character).casefold())
    return "".join(
        c for c in plain if not c.isspace() and unicodedata.category(c) not in ("Cf", "Cc")
    )
