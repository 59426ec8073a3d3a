"""Which tokens may stand where in a text that is to be written: the lines of a poem, or anything.

Legend: R texts, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nlpkit.decoding.per_position import Patterned
from nlpkit.errors import SettingsError
from nlpkit.tasks.cln.detokenize import Writing
from nlpkit.tasks.cln.poem_forms import IDEOGRAPH, is_ideograph

_FIRST, _ANY, _END = "first", "any", "end"


class Metres:
    """Constraints over the tokens of a `Writing`; special tokens are never written."""

    def __init__(self, writing: Writing, end_id: int):
        self.writing = writing
        self.end_id = end_id
        self._ids: dict[str, list[int]] = {_END: [end_id]}
        self._ids[_FIRST] = sorted(writing.strings.keys() - set(writing.special))
        self._ids[_ANY] = [*self._ids[_FIRST], end_id]
        self._ids[IDEOGRAPH] = writing.ids(
            s for s in set(writing.strings.values()) if is_ideograph(s)
        )

    def constraint(
        self, patterns: Sequence[str], begun: Sequence[int], vocabulary_size: int, device: Any
    ) -> Patterned:
        """Each text as its pattern goes on after its first `begun` characters; for "", any text
        that is not empty.

        Raises SettingsError for a pattern with a character that no token stands for.
        """
        rows = [[*pattern, _END] if pattern else [_FIRST, _ANY] for pattern in patterns]
        kinds = list(dict.fromkeys(kind for row in rows for kind in row))
        legal_KV = torch.zeros((len(kinds), vocabulary_size), dtype=torch.bool)
        for number, kind in enumerate(kinds):
            legal_KV[number, self._tokens(kind)] = True
        kind_RT = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor([kinds.index(kind) for kind in row]) for row in rows], True, 0
        )
        for row, names in enumerate(rows):
            kind_RT[row, len(names) :] = kind_RT[row, len(names) - 1]
        return Patterned(
            legal_KV.to(device), self.end_id, kind_RT.to(device), torch.tensor(begun).to(device)
        )

    def check(self, pattern: str) -> None:
        """Raises SettingsError for a pattern with a character that no token stands for."""
        for character in pattern:
            self._tokens(character)

    def _tokens(self, kind: str) -> list[int]:
        """The tokens that may stand at a place: of a name of `_ids`, or of a character."""
        if kind in self._ids:
            token_ids = self._ids[kind]
        else:
            token_ids = list(self.writing.tokenizer.token_ids(kind))
            if len(token_ids) != 1:
                token_ids = []
        if not token_ids:
            raise SettingsError(f'form: expected characters that are one token each, got "{kind}"')
        return token_ids

    def text(self, token_ids: Sequence[int], begun: str, pattern: str) -> str:
        """What is begun and the tokens after it, as text; punctuation as the pattern has it."""
        if not pattern:
            return self.writing.text(token_ids, begun)
        wanted = pattern[len(begun) : len(begun) + len(token_ids)]
        strings = (self.writing.strings[index] for index in token_ids)
        return begun + "".join(
            s if w == IDEOGRAPH else w for s, w in zip(strings, wanted, strict=True)
        )
