"""What a `tokenizers` tokenizer must be to serve an encoder: its special tokens, its ids, its hash."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import tokenizers

from nlpkit.errors import SettingsError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
"""What every vocabulary must have."""

_RARE = "\U00013000"
"""An Egyptian hieroglyph: hardly a vocabulary has it, and no normaliser removes it."""


def read_backend(path: Path) -> tokenizers.Tokenizer:
    """The `tokenizers` tokenizer of a tokenizer.json, with truncation and padding off.

    Raises SettingsError where the file is no tokenizer, and as `check_backend` does.
    """
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 (the binding raises bare Exception)
        raise SettingsError(f"{path}: not a tokenizer: {error}") from None
    check_backend(backend, path)
    return backend


def check_backend(backend: tokenizers.Tokenizer, where: Any) -> None:
    """Switches truncation and padding off, which would cut and lengthen texts without a word.

    Raises SettingsError that names `where` if one of SPECIAL_TOKENS is missing, two tokens share
    an id, or an unknown character does not become [UNK].
    """
    backend.no_truncation()
    backend.no_padding()
    lacking = [token for token in SPECIAL_TOKENS if backend.token_to_id(token) is None]
    if lacking:
        raise SettingsError(f"{where}: lacks {', '.join(lacking)}")
    first_of: dict[int, str] = {}
    for token, token_id in backend.get_vocab().items():
        other = first_of.setdefault(token_id, token)
        if other != token:
            raise SettingsError(f'{where}: "{other}" and "{token}" share the id {token_id}')
    unknown_token = getattr(backend.model, "unk_token", None) or "[UNK]"
    if unknown_token != "[UNK]":
        raise SettingsError(f"{where}: unknown token: expected [UNK], got {unknown_token}")
    try:
        is_read = bool(backend.encode(_RARE, add_special_tokens=False).ids)
    except Exception:  # noqa: BLE001 (the binding raises bare Exception)
        is_read = False
    if not is_read:
        raise SettingsError(f"{where}: does not name [UNK] as its unknown token")


def special_id(backend: tokenizers.Tokenizer, token: str) -> int:
    """The id of a special token such as [SEP]. Raises SettingsError where there is none."""
    token_id = backend.token_to_id(token)
    if token_id is None:
        raise SettingsError(f"the tokenizer's vocabulary lacks {token}")
    return token_id


def vocabulary_hash(backend: tokenizers.Tokenizer) -> str:
    """sha256 of the tokens in the order of their ids, a line each: that of a `vocab.txt`."""
    tokens = sorted(backend.get_vocab().items(), key=lambda pair: pair[1])
    return hashlib.sha256("".join(f"{token}\n" for token, _ in tokens).encode()).hexdigest()
