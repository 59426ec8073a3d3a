"""Replacing strings of a text by others, to make new training texts of old ones.

Source: https://kexue.fm/archives/6671, which replaces the subject and object of a triple by those
of another triple of the same predicate, with probability 0.5.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from nlpkit.text.tokenizer import Span, occurrences

Pool = Mapping[Hashable, Sequence[str]]  # role -> strings that were seen in it


def build_pool(named: Iterable[tuple[Hashable, str]]) -> Pool:
    """The strings of each role, sorted, so that a seed means the same in every run."""
    pool: dict[Hashable, set[str]] = {}
    for role, string in named:
        pool.setdefault(role, set()).add(string)
    return {role: sorted(strings) for role, strings in pool.items()}


def draw(
    text: str, strings: Mapping[str, Hashable], pool: Pool, rate: float, random: Any
) -> dict[str, str]:
    """For some of the strings of a text (string -> its role) another one of the same role.

    Left alone are strings that share characters with another one in the text or in spelling, since
    to replace one would break the other; and no new string is taken that holds another one or lies
    in it.
    """
    places = [(span, string) for string in strings for span in occurrences(text, string)]
    chosen: dict[str, str] = {}
    for string, role in strings.items():
        mine = [span for span, other in places if other == string]
        others = [span for span, other in places if other != string]
        overlaps = any(a < d and c < b for a, b in mine for c, d in others)
        if overlaps or random.random() >= rate:
            continue
        new = pool[role][random.integers(len(pool[role]))]
        if not any(new in other or other in new for other in (*strings, *chosen.values())):
            chosen[string] = new
    return chosen


def replace_all(text: str, chosen: Mapping[str, str]) -> str:
    """The text with every occurrence of each chosen string replaced, longer ones first."""
    if not chosen:
        return text
    pattern = "|".join(re.escape(string) for string in sorted(chosen, key=len, reverse=True))
    return re.sub(pattern, lambda match: chosen[match.group()], text)


def replace_spans(
    text: str, spans: Sequence[Span], strings: Sequence[str]
) -> tuple[str, list[Span]]:
    """The text with each span replaced by its string, and where these are now. Spans are sorted and
    do not overlap."""
    pieces = []
    new = []
    done = 0
    length = 0
    for (start, end), string in zip(spans, strings, strict=True):
        length += start - done
        pieces += [text[done:start], string]
        new.append((length, length + len(string)))
        length += len(string)
        done = end
    return "".join([*pieces, text[done:]]), new
