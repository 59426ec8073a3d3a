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
    vocabulary = backend.get_vocab()
    if any(name not in vocabulary for name in names):
        raise SettingsError(
            f"the vocabulary lacks one of {', '.join(names)}, which pretraining needs"
        )
    cls_id, sep_id, mask_id = (vocabulary[name] for name in names)
    first = 1 + max(cls_id, sep_id, mask_id)
    return Symbols(cls_id, sep_id, mask_id, first, 1 + max(vocabulary.values()))
