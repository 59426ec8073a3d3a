"""The ids of a vocabulary that the objectives of a pretraining need."""

from __future__ import annotations

from dataclasses import dataclass

import tokenizers

from nlpkit.errors import SettingsError


@dataclass(frozen=True)
class Symbols:
    """The ids that the objectives need; `first` is the lowest that is not special."""

    cls_id: int
    sep_id: int
    mask_id: int
    first: int
    vocabulary: int


def symbols_of(backend: tokenizers.Tokenizer) -> Symbols:
    """Those of a vocabulary. Raises SettingsError for one without [MASK]."""
    names = ("[CLS]", "[SEP]", "[MASK]")
    found = {name: backend.token_to_id(name) for name in names}
    if None in found.values():
        raise SettingsError(
            f"the vocabulary lacks one of {', '.join(names)}, which pretraining needs"
        )
    first = 1 + max(found.values())
    return Symbols(
        found["[CLS]"],
        found["[SEP]"],
        found["[MASK]"],
        first,
        1 + max(backend.get_vocab().values()),
    )
