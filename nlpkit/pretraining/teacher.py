"""A pretrained encoder as a teacher: what it says of the texts of blocks, piece by piece.

The teacher reads a text in the pieces of its own tokenizer. Since a piece is a span of characters,
it does not matter how the student cuts the same text (`alignment`). It may have any tokenizer.json
that knows where its pieces lie: word pieces, SentencePiece, bytes.

B blocks, T tokens of a block, P pieces that teach, K tokens under them, H hidden (of the teacher).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch

from nlpkit.encoders.base import encode_layers
from nlpkit.encoders.by_name import build
from nlpkit.encoders.checkpoint.files import weight_files
from nlpkit.encoders.checkpoint.load import load_encoder
from nlpkit.encoders.shipped import folder_of
from nlpkit.errors import SettingsError
from nlpkit.pretraining.alignment import BlockTexts, covered_tokens
from nlpkit.pretraining.corpus import split_tokens
from nlpkit.run_files import file_sha256
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import TokenBatch, pad

GROUPS = 4
"""The texts of a batch are read in so many parts, each of nearly one length."""
MARKS = "▁Ġ"
"""How tokenizers write a space. A piece of nothing else is not taught: its offsets may claim the
character behind it."""


@dataclass(frozen=True)
class Lesson(TensorFields):
    """What the teacher reads of a batch, and where its pieces lie in the blocks."""

    texts: tuple[TokenBatch, ...]
    """In the teacher's tokens; together they have a row for each of the B blocks."""
    places_P: torch.Tensor
    """Of each piece among all tokens of `texts`, one row after the other."""
    row_P: torch.Tensor
    """The block that each piece lies in."""
    covered_K: torch.Tensor
    """Places (row * T + column) of the student's tokens under the pieces, piece by piece."""
    first_P: torch.Tensor
    """Where in `covered_K` the tokens of each piece begin; each has one at least."""
    rows: int
    """B."""


class Teacher:
    """An encoder that learns nothing, with its tokenizer. It is no module, so that it is in no
    checkpoint of its student.

    `around` are the ids that its tokenizer puts before and behind a text.
    """

    def __init__(
        self,
        encoder: Any,
        backend: tokenizers.Tokenizer,
        around: tuple[list[int], list[int]],
        student: tokenizers.Tokenizer,
    ):
        self.encoder = encoder.eval().requires_grad_(False)
        self.backend = backend
        self.before, self.behind = around
        self.room = encoder.max_length - len(self.before) - len(self.behind)
        self.block_texts = BlockTexts(student)
        vocabulary = backend.get_vocab()
        self.marks = [token_id for token, token_id in vocabulary.items() if not token.strip(MARKS)]
        self.numbers = taught_layers(encoder.depth)

    def to(self, device: torch.device) -> Teacher:
        """The teacher, moved to a device."""
        self.encoder.to(device)
        return self

    def lesson(self, blocks: Sequence[np.ndarray]) -> Lesson:
        """The lesson of blocks (tokens,) of one length, as the rows [CLS] block [SEP] show them.

        Pieces beyond the teacher's longest input are left out, and those without a token under
        them.
        """
        texts = []
        spans = []
        for block in blocks:
            text, spans_N2 = self.block_texts.text(*split_tokens(block))
            texts.append(text)
            spans.append(spans_N2)
        read = self.backend.encode_batch(texts, add_special_tokens=False)
        order = np.argsort([len(encoding) for encoding in read], kind="stable")
        groups = []
        places, rows, covered, counts = [], [], [], []
        start = 0
        for group in np.array_split(order, min(GROUPS, len(order))):
            tokens = self._batch([read[row].ids[: self.room] for row in group])
            groups.append(tokens)
            width = tokens.token_ids_BT.shape[1]
            for row in group:
                counts_P, tokens_K = self._covered(read[row], spans[row])
                taught = np.flatnonzero(counts_P)
                places.append(start + len(self.before) + taught)
                rows.append(np.full(len(taught), row))
                covered.append(row * (len(blocks[row]) + 2) + 1 + tokens_K)
                counts.append(counts_P[taught])
                start += width
        counts_P = np.concatenate(counts)
        return Lesson(
            texts=tuple(groups),
            places_P=torch.from_numpy(np.concatenate(places)),
            row_P=torch.from_numpy(np.concatenate(rows)),
            covered_K=torch.from_numpy(np.concatenate(covered)),
            first_P=torch.from_numpy(np.cumsum(counts_P) - counts_P),
            rows=len(blocks),
        )

    def _covered(
        self, read: tokenizers.Encoding, spans_N2: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(counts_P, tokens_K) of all pieces of a text that the teacher has room for."""
        pieces_P2 = np.array(read.offsets[: self.room], np.int64).reshape(-1, 2)
        is_mark_P = np.isin(read.ids[: self.room], self.marks)
        pieces_P2[is_mark_P] = 0
        return covered_tokens(spans_N2, pieces_P2)

    def _batch(self, rows: list[list[int]]) -> TokenBatch:
        whole = [[*self.before, *row, *self.behind] for row in rows]
        token_ids_BT = pad(whole)[:, : self.encoder.max_length]
        lengths_B1 = torch.tensor([[len(row)] for row in whole])
        mask_BT = torch.arange(token_ids_BT.shape[1]) < lengths_B1
        return TokenBatch(token_ids_BT, torch.zeros_like(token_ids_BT), mask_BT, mask_BT)

    @torch.no_grad()
    def vectors(self, lesson: Lesson) -> list[torch.Tensor]:
        """hidden_PH of the pieces, after each of the layers `numbers`."""
        parts: list[list[torch.Tensor]] = [[] for _ in self.numbers]
        for tokens in lesson.texts:
            layers = encode_layers(self.encoder, tokens, "full", self.numbers)
            for part, hidden_BTH in zip(parts, layers, strict=True):
                part.append(hidden_BTH.flatten(0, 1))
        return [torch.cat(part)[lesson.places_P] for part in parts]


def taught_layers(depth: int) -> tuple[int, int]:
    """The layers (1 is the first) that teach and learn: the middle one and the last."""
    return (depth + 1) // 2, depth


def open_teacher(
    name: str, student: tokenizers.Tokenizer, random: bool = False, seed: int = 0
) -> Teacher:
    """The teacher of a directory, or of the name of an encoder that ships; `student` is the
    tokenizer of the blocks.

    With `random` its weights are drawn from `seed` instead of read. torch's generator stays where
    it is. Raises SettingsError where there is no tokenizer.json, or no encoder of the BERT family.
    """
    folder = folder_of(name)
    if not folder.is_dir():
        raise SettingsError(f"--teacher: {name}: no such directory")
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise SettingsError(f"--teacher: {folder}: no tokenizer.json, which tells its pieces")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 (the binding raises bare Exception)
        raise SettingsError(f"--teacher: {path}: not a tokenizer: {error}") from None
    backend.no_truncation()
    backend.no_padding()
    encoder = _weights(folder, random, seed)
    size = 1 + max(backend.get_vocab().values())
    if size > encoder.vocabulary_size:
        rows = encoder.vocabulary_size
        raise SettingsError(
            f"--teacher: {path}: more tokens than embeddings: expected at most {rows}, got {size}"
        )
    return Teacher(encoder, backend, _around(backend, path), student)


def _weights(folder: Path, random: bool, seed: int) -> Any:
    try:
        with torch.random.fork_rng(devices=[]):  # modules are drawn before they are filled
            encoder = load_encoder(folder)
            if not random:
                return encoder
            torch.manual_seed(seed)
            return build(encoder.spec())
    except SettingsError as error:
        raise SettingsError(
            f"--teacher: {error.message}",
            hint="a teacher is a bert, electra, ernie or roformer; "
            "nlpkit encoder convert makes a bert of an XLM-R",
        ) from None


def describe_teacher(name: str) -> dict[str, str]:
    """The name of its folder and a hash of its files, for the record of a pretraining. Raises
    SettingsError where they cannot be read."""
    folder = folder_of(name)
    files = [folder / "config.json", folder / "tokenizer.json", *weight_files(folder, pickle=False)]
    content = hashlib.sha256("".join(map(file_sha256, files)).encode())
    return {"name": Path(folder).resolve().name, "sha256": content.hexdigest()}


def _around(backend: tokenizers.Tokenizer, path: Path) -> tuple[list[int], list[int]]:
    """The ids before and behind a text: those of the tokenizer's own post-processor, else [CLS] and
    [SEP], or <s> and </s>. Raises SettingsError where there is none of them."""
    whole = backend.encode("一", add_special_tokens=True)
    text = backend.encode("一", add_special_tokens=False).ids
    first = next((i for i, special in enumerate(whole.special_tokens_mask) if not special), 0)
    if len(whole.ids) > len(text) and text:
        return whole.ids[:first], whole.ids[first + len(text) :]
    vocabulary = backend.get_vocab()
    for first_name, last_name in (("[CLS]", "[SEP]"), ("<s>", "</s>")):
        if first_name in vocabulary and last_name in vocabulary:
            return [vocabulary[first_name]], [vocabulary[last_name]]
    raise SettingsError(f"--teacher: {path}: expected [CLS] and [SEP], or <s> and </s>")
