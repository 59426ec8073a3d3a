"""Letters that are several characters: the marks that belong to the one before them."""

from __future__ import annotations

import unicodedata

import numpy as np


def cover_marks(offsets_T2: np.ndarray, text: str) -> None:
    """Moves the end of every token, in place, over the marks behind it that no token covers.

    A normaliser composes e and U+0301 to é, and tells of the token that it stands at the e alone.
    The span of the whole letter would be no span of tokens then.
    """
    next_starts_T = np.append(offsets_T2[1:, 0], len(text))
    for index in np.flatnonzero(offsets_T2[:, 1] < next_starts_T):
        end = offsets_T2[index, 1]
        while end < next_starts_T[index] and _is_part_of_letter(text, end):
            end += 1
        offsets_T2[index, 1] = end


def _is_part_of_letter(text: str, place: int) -> bool:
    """Whether a character belongs to the one before it: a mark, or half of a composed letter."""
    if unicodedata.category(text[place]).startswith("M"):
        return True
    return len(unicodedata.normalize("NFC", text[place - 1 : place + 1])) == 1
