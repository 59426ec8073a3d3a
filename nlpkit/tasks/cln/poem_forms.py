"""Forms of poems: how many characters stand in a line, and what ends it, as a pattern of the whole
poem.

    字字字字字，字字字字字。字字字字字，字字字字字。          五言绝句

字 stands for any ideograph, every other character for itself.
"""

from __future__ import annotations

import re

IDEOGRAPH = "字"
_NAME = re.compile(r"([五七])言(绝句|絕句|律诗|律詩)")
_IDEOGRAPH = re.compile(r"[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def form_of(name: str) -> str | None:
    """The pattern of 五言绝句, 七言绝句, 五言律诗 or 七言律诗, simplified or traditional; None for other names."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    line = IDEOGRAPH * {"五": 5, "七": 7}[match[1]]
    return f"{line}，{line}。" * (2 if match[2][0] in "绝絕" else 4)


def is_ideograph(character: str) -> bool:
    """Whether a string is one ideograph."""
    return _IDEOGRAPH.fullmatch(character) is not None


def begins(text: str, pattern: str) -> bool:
    """Whether the text is as the pattern goes, as far as the text goes."""
    return len(text) <= len(pattern) and all(
        is_ideograph(character) if wanted == IDEOGRAPH else character == wanted
        for character, wanted in zip(text, pattern, strict=False)
    )


def fits(text: str, pattern: str) -> bool:
    """Whether the text is as the pattern, from its beginning to its end."""
    return len(text) == len(pattern) and begins(text, pattern)
