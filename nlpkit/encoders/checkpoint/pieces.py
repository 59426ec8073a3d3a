"""From the pieces of a SentencePiece vocabulary (XLM-R, e5, MiniLM, bge-m3) to one of characters.

The new vocabulary is of WordPiece; each of its tokens has the vector of a piece:

    [PAD] [UNK] [CLS] [SEP] [MASK]   <pad> <unk> <s> </s> <mask>
    a character                      its piece, without the mark of a word's start if it has one
    a word's start, a-z and 0-9      the piece with the mark, else the one without
    ##more of it                     the piece without the mark; of a single one else that with it
    a variant of a character         the piece that the old normaliser makes of it: of a full-width
                                     comma the comma, of an ellipsis the three dots

Letters and digits of ASCII make words; every other character is a token of its own. Of the pieces
of several letters the most frequent (the best scores) are taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors

from nlpkit.encoders.checkpoint.files import read_json
from nlpkit.errors import SettingsError
from nlpkit.text.backend import check_backend

START = "\u2581"
"""The mark of a word's start."""
SPECIAL = {
    "[PAD]": "<pad>",
    "[UNK]": "<unk>",
    "[CLS]": "<s>",
    "[SEP]": "</s>",
    "[MASK]": "<mask>",
}
MOST = 5000
"""Pieces of several letters or digits that are kept."""
_VARIANTS = [(0xA0, 0x100), (0x2000, 0x3400), (0xF900, 0xFB00), (0xFE30, 0xFE70), (0xFF00, 0xFFF0)]
"""Half-open ranges of the characters that are looked at as variants: punctuation, symbols, CJK
compatibility, widths."""


def is_of_pieces(folder: Path) -> bool:
    """Whether a checkpoint directory has a tokenizer.json with a Unigram model."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return False
    model = read_json(path).get("model")
    return isinstance(model, dict) and model.get("type") == "Unigram"


@dataclass
class Characters:
    """The new vocabulary: token -> id of the piece whose vector it has, in the order of the ids."""

    rows: dict[str, int] = field(default_factory=dict)

    def tokenizer(self) -> tokenizers.Tokenizer:
        """The tokenizer of these tokens, with [CLS] and [SEP] around a text."""
        ids = {token: number for number, token in enumerate(self.rows)}
        made = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False
        )
        steps = [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex("[^0-9A-Za-z]"), "isolated"),
        ]
        made.pre_tokenizer = pre_tokenizers.Sequence(steps)
        made.add_special_tokens(list(SPECIAL))
        made.post_processor = processors.BertProcessing(
            ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
        )
        made.decoder = tokenizers.decoders.WordPiece()
        return made


def characters_of(folder: Path) -> Characters:
    """The vocabulary of characters of a directory whose tokenizer is one of pieces.

    Raises SettingsError where the file is no tokenizer, or a special piece is missing.
    """
    path = folder / "tokenizer.json"
    try:
        old = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 (the binding raises bare Exception)
        raise SettingsError(f"{path}: not a tokenizer: {error}") from None
    piece_ids = dict(sorted(old.get_vocab().items(), key=lambda pair: pair[1]))
    lacking = [piece for piece in SPECIAL.values() if piece not in piece_ids]
    if lacking:
        raise SettingsError(f"{path}: lacks {', '.join(lacking)}")
    rows = {token: piece_ids[piece] for token, piece in SPECIAL.items()}
    plain = {piece: number for piece, number in piece_ids.items() if number not in rows.values()}
    _add_characters(rows, plain)
    _add_words(rows, _most_frequent(path, plain))
    _add_variants(rows, plain, old.normalizer)
    made = Characters(rows)
    check_backend(made.tokenizer(), path)
    return made


def _add_characters(rows: dict[str, int], pieces: dict[str, int]) -> None:
    for piece in pieces:
        text = piece.removeprefix(START)
        if len(text) != 1 or text.isspace() or text == START:
            continue
        plain = pieces.get(text, pieces.get(START + text))
        initial = pieces.get(START + text, plain)
        assert plain is not None  # one of the two is this piece
        assert initial is not None
        if text.isascii() and text.isalnum():
            rows["##" + text] = plain
            rows[text] = initial
        else:
            rows[text] = plain


def _add_words(rows: dict[str, int], pieces: Iterable[tuple[str, int]]) -> None:
    for piece, number in pieces:
        text = piece.removeprefix(START)
        rows[text if piece.startswith(START) else "##" + text] = number


def _most_frequent(path: Path, pieces: dict[str, int]) -> list[tuple[str, int]]:
    """(piece, id) of the MOST pieces of several letters or digits with the best scores, by id."""
    score_of = dict(json.loads(path.read_bytes())["model"]["vocab"])
    found = []
    for piece in pieces:
        text = piece.removeprefix(START)
        if len(text) > 1 and text.isascii() and text.isalnum():
            found.append(piece)
    best = sorted(found, key=lambda piece: -score_of.get(piece, float("-inf")))[:MOST]
    return sorted(((piece, pieces[piece]) for piece in best), key=lambda pair: pair[1])


def _add_variants(
    rows: dict[str, int], pieces: dict[str, int], normalizer: normalizers.Normalizer | None
) -> None:
    """Gives a token to the characters that the old tokenizer read as another piece."""
    if normalizer is None:
        return
    for first, end in _VARIANTS:
        for number in range(first, end):
            text = chr(number)
            if text in rows or text.isspace():
                continue
            form = normalizer.normalize_str(text)
            known = pieces.get(form, pieces.get(START + form))
            if form not in ("", text) and known is not None:
                rows[text] = known
