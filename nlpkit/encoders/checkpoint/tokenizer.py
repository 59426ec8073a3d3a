"""The tokenizer of a checkpoint directory: tokenizer.json, or BERT's word pieces over a vocab.txt
with the tokens that were added to it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from nlpkit.encoders.checkpoint.files import read_json
from nlpkit.errors import SettingsError
from nlpkit.jsonl import read_text
from nlpkit.text.backend import SPECIAL_TOKENS, check_backend, read_backend

_HAN_WORD = re.compile(r"[\u3400-\u9fff]{2,}")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
FEW = 0.01
"""Share of the tokens that may be Chinese words in a vocabulary of characters."""


def tokenizer_file(folder: Path) -> Path | None:
    """The file that the tokenizer is read from; None where there is none."""
    for name in ("tokenizer.json", "vocab.txt"):
        if (folder / name).is_file():
            return folder / name
    return None


def read_tokenizer(folder: Path, rows: int | None) -> tokenizers.Tokenizer:
    """The tokenizer of a folder, with truncation and padding off.

    `rows` is the number of embeddings, None where that is not known. Raises SettingsError where
    there is no tokenizer, as `check_backend` does, for more tokens than embeddings, and for a
    vocabulary of Chinese words, which it would read as characters.
    """
    path = tokenizer_file(folder)
    if path is None:
        raise SettingsError(f"{folder}: no tokenizer: expected tokenizer.json or vocab.txt")
    is_whole = path.suffix == ".json"
    tokenizer = _from_json(path) if is_whole else _from_vocabulary(path)
    _add_tokens(tokenizer, folder, may_add=not is_whole)
    size = 1 + max(tokenizer.get_vocab().values())
    if rows is not None and size > rows:
        raise SettingsError(
            f"{path}: more tokens than embeddings: expected at most {rows}, got {size}"
        )
    return tokenizer


def _from_json(path: Path) -> tokenizers.Tokenizer:
    if not isinstance(read_json(path).get("model"), dict):
        raise SettingsError(f'{path}: not a tokenizer: missing field "model"')
    return read_backend(path)


def _from_vocabulary(path: Path) -> tokenizers.Tokenizer:
    """BERT's WordPiece tokenizer over a vocab.txt; the line of a token, counted from 0, is its
    id."""
    settings = _settings(path.parent)
    ids = _read_vocabulary(path)
    _refuse_words(path, ids, str(settings.get("tokenizer_class")))
    tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([t for t in (*SPECIAL_TOKENS, "[MASK]") if t in ids])
    check_backend(tokenizer, path)
    ends = [("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])]
    tokenizer.post_processor = processors.BertProcessing(*ends)
    return tokenizer


def _read_vocabulary(path: Path) -> dict[str, int]:
    ids: dict[str, int] = {}
    lines = read_text(path, SettingsError).removesuffix("\n").split("\n")
    for number, token in enumerate(lines):
        if ids.setdefault(token, number) != number:
            first = ids[token] + 1
            raise SettingsError(f'{path}:{number + 1}: "{token}" is already on line {first}')
    return ids


def _refuse_words(path: Path, tokens: Iterable[str], tokenizer_class: str) -> None:
    """A word-level RoFormer cuts a text to words before it looks them up; read as word pieces its
    words would never be found, and all its texts would be single characters."""
    tokens = list(tokens)
    words = [token for token in tokens if _HAN_WORD.fullmatch(token)]
    of_words = len(words) > FEW * len(tokens)
    if of_words or (words and tokenizer_class.startswith("RoFormerTokenizer")):
        raise SettingsError(
            f"{path}: a vocabulary of Chinese words: expected one of characters, "
            f'got "{words[0]}" and {len(words) - 1} more',
            hint="take a checkpoint of the same family that reads characters",
        )


def _add_tokens(tokenizer: tokenizers.Tokenizer, folder: Path, may_add: bool) -> None:
    """Gives the tokenizer the tokens that were added to the vocabulary, under their own ids.

    A tokenizer.json has them already (not `may_add`). Raises SettingsError where one is missing
    there, or has another id.
    """
    for token_id, token in sorted(_added_tokens(folder).items()):
        if tokenizer.token_to_id(token.content) is None and may_add:
            add = tokenizer.add_special_tokens if token.special else tokenizer.add_tokens
            add([token])
        found = tokenizer.token_to_id(token.content)
        if found != token_id:
            raise SettingsError(
                f'{folder}: added token "{token.content}": expected the id {token_id}, got {found}'
            )


def _added_tokens(folder: Path) -> dict[int, tokenizers.AddedToken]:
    """Id -> token of added_tokens.json and, in newer checkpoints, of tokenizer_config.json."""
    found: dict[int, tokenizers.AddedToken] = {}
    old = folder / "added_tokens.json"
    if old.is_file():
        for content, token_id in read_json(old).items():
            if type(token_id) is not int:
                raise SettingsError(f'{old}: "{content}": expected an id, got {token_id!r:.40}')
            found[token_id] = tokenizers.AddedToken(content, normalized=True)
    decoder = _settings(folder).get("added_tokens_decoder")
    for token_id, values in (decoder if isinstance(decoder, dict) else {}).items():
        if not str(token_id).isdecimal() or not isinstance(values, dict):
            raise SettingsError(f"{folder}/tokenizer_config.json: added_tokens_decoder: no tokens")
        flags = {name: values[name] for name in _FLAGS if isinstance(values.get(name), bool)}
        found[int(token_id)] = tokenizers.AddedToken(str(values.get("content")), **flags)
    return found


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}
