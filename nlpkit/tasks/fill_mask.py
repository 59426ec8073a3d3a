"""Filling in [MASK]: what an encoder has learnt from plain text, shown; and trained further on
lines of its own.

    in   {"text": "中国的首都是[MASK][MASK]。", "answer": "北京"}
    out  {..., "prediction": {"text": "中国的首都是北京。", "masks": [{"start": 6, "end": 12, "token": "北",
          "probability": 0.91, "candidates": [{"token": "北", "probability": 0.91}, ...]}, ...]}}

A mask stands for one token of the encoder; `answer` has as many tokens as the text has masks. Masks
are filled one at a time, the surest of a text first, and the others are looked at again with it:
independent guesses do not fit together. `nlpkit predict ENCODER` is this task without any training.

Source: Devlin et al. 2018, arxiv.org/abs/1810.04805; the order is that of Ghazvininejad et al.
2019, arxiv.org/abs/ 1904.09324, with one token a round. Legend: B batch, T tokens, N masks, V
vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import nn

from nlpkit import task
from nlpkit.config import Range, Size
from nlpkit.encoders.base import encode
from nlpkit.errors import RecordError, SettingsError
from nlpkit.formats.finding import Finding
from nlpkit.formats.text import read_text, text_windows
from nlpkit.formats.typed import read_dataclass
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import Encoding, TokenBatch, Tokenizer

MASK = "[MASK]"


@dataclass(frozen=True)
class Settings:
    """Settings, section `fill_mask`."""

    candidates: Size = 5
    """Tokens listed for every mask, the likeliest first."""
    max_length: Annotated[int, Range(3, 1_000_000)] = 512
    """Longer texts are cut to overlapping windows of so many tokens (fewer where the encoder takes
    fewer)."""


@dataclass(frozen=True)
class Candidate:
    """A token that may stand at a mask."""

    token: str
    probability: float


@dataclass(frozen=True)
class Mask:
    """A mask by its place in the text as given, and what it hides."""

    start: int
    end: int
    token: str
    probability: float | None = None
    candidates: list[Candidate] = field(default_factory=list)


@dataclass(frozen=True)
class Prediction:
    """The text with its masks filled in."""

    text: str
    masks: list[Mask]


@dataclass(frozen=True)
class Example:
    """A text whose masks are one token each."""

    encoding: Encoding
    gold: Prediction | None

    def __len__(self) -> int:
        return len(self.encoding)


@dataclass(frozen=True)
class Batch(TensorFields):
    """Tokens and, where gold is known, what the masks hide, row by row."""

    encodings: list[Encoding]
    tokens: TokenBatch
    is_mask_BT: torch.Tensor
    targets_N: torch.Tensor | None


class Model(nn.Module):
    """An encoder with its masked-LM head."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: Batch) -> torch.Tensor:
        """The mean loss of each text's masks, 0 for a text without one in this window: (B,)."""
        assert batch.targets_N is not None
        logits_NV = self.logits(batch.tokens, batch.is_mask_BT)
        loss_N = nn.functional.cross_entropy(logits_NV.float(), batch.targets_N, reduction="none")
        row_N = batch.is_mask_BT.nonzero()[:, 0]
        sum_B = torch.zeros(len(batch.is_mask_BT), device=loss_N.device).index_add(0, row_N, loss_N)
        return sum_B / batch.is_mask_BT.sum(1).clamp(min=1)

    def logits(self, tokens: TokenBatch, at_BT: torch.Tensor) -> torch.Tensor:
        """logits_NV at some places."""
        return self.encoder.token_logits(encode(self.encoder, tokens)[at_BT])


class Task(task.Task[Example, Batch, Prediction]):
    """See the module docstring. Raises SettingsError for a vocabulary without [MASK]."""

    Config = Settings
    monitor = "accuracy"
    group = "token"

    @classmethod
    def needs_head(cls, config: Settings) -> bool:
        """Yes: it fills in masks."""
        return True

    @classmethod
    def prepare(
        cls, config: Settings, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> Settings:
        """Nothing: the vocabulary is the encoder's."""
        return config

    def __init__(self, config: Settings, tokenizer: Tokenizer, folder: Path | None):
        self.config = config
        self.tokenizer = tokenizer
        self.vocabulary: dict[str, int] = tokenizer.backend.get_vocab()
        if MASK not in self.vocabulary:
            raise SettingsError(f"the encoder's vocabulary has no {MASK}")
        self.mask_id = self.vocabulary[MASK]
        is_special = re.compile(r"\[\w+\]").fullmatch
        self.special = [i for token, i in self.vocabulary.items() if is_special(token)]
        self.listed = min(config.candidates, len(self.vocabulary) - len(self.special))

    def read(self, record: dict[str, Any]) -> Example:
        """`text` with [MASK] in it and, where there is gold, `answer`: the hidden tokens one after
        another. Raises RecordError for a text without a mask, or gold of more or fewer tokens."""
        text = read_text(record)
        places = [match.span() for match in re.finditer(re.escape(MASK), text)]
        if not places:
            raise RecordError(f'field "text": expected {MASK} in it')
        answer, gold = record.get("answer"), None
        if answer is not None:
            if not isinstance(answer, str):
                raise RecordError(f'field "answer": expected a string, got {type(answer).__name__}')
            tokens = self.tokenizer.backend.encode(answer, add_special_tokens=False).tokens
            if len(tokens) != len(places):
                raise RecordError(
                    f'field "answer": expected {len(places)} tokens, one a mask, got {len(tokens)}'
                )
            pairs = zip(places, tokens, strict=True)
            gold = _filled(text, [Mask(*place, token) for place, token in pairs])
        return Example(self._with_masks(self.tokenizer.encode(text), places), gold)

    def _with_masks(self, encoding: Encoding, places: list[tuple[int, int]]) -> Encoding:
        """The encoding with one token [MASK] where the text has its six characters."""
        token_ids_T, ends_T = encoding.token_ids_T.copy(), encoding.ends_T.copy()
        keep_T = np.ones(len(encoding), dtype=bool)
        for span in map(encoding.token_span, places):
            assert span is not None  # a bracket is a token of its own in every vocabulary
            first, end = span
            token_ids_T[first], ends_T[first] = self.mask_id, ends_T[end - 1]
            keep_T[first + 1 : end] = False
        return replace(
            encoding,
            token_ids_T=token_ids_T[keep_T],
            starts_T=encoding.starts_T[keep_T],
            ends_T=ends_T[keep_T],
        )

    def parse(self, value: dict[str, Any]) -> Prediction:
        """A prediction from a file."""
        return read_dataclass(Prediction, value)

    def windows(self, example: Example) -> list[Example]:
        """Overlapping windows of a long text."""
        return text_windows(self.tokenizer, example, self.config.max_length)

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """Pads the texts."""
        encodings = [example.encoding for example in examples]
        tokens = self.tokenizer.collate(encodings)
        is_mask_BT = tokens.token_ids_BT.eq(self.mask_id)
        targets_N = None
        if targets:
            places = is_mask_BT.nonzero().tolist()
            ids = [self._target(examples[row], column) for row, column in places]
            targets_N = torch.tensor(ids, dtype=torch.int64)
        return Batch(encodings, tokens, is_mask_BT, targets_N)

    def _target(self, example: Example, column: int) -> int:
        """The id that a mask hides."""
        start = example.encoding.starts_T[column]
        masks = example.gold.masks if example.gold else []
        return self.vocabulary[next(mask.token for mask in masks if mask.start == start)]

    def build_model(self, encoder: nn.Module) -> Model:
        """The encoder as it is."""
        return Model(encoder)

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """Fills the surest mask of every text, and looks again, until none is left."""
        found: list[list[Mask]] = [[] for _ in batch.encodings]
        token_ids_BT, open_BT = batch.tokens.token_ids_BT.clone(), batch.is_mask_BT.clone()
        while open_BT.any():
            tokens = replace(batch.tokens, token_ids_BT=token_ids_BT)
            logits_NV = model.logits(tokens, open_BT).float()
            logits_NV[:, self.special] = -torch.inf
            best_NK, ids_NK = logits_NV.softmax(-1).topk(self.listed)
            done: set[int] = set()
            places = open_BT.nonzero().tolist()
            for number in best_NK[:, 0].argsort(descending=True).tolist():
                row, column = places[number]
                if row not in done:
                    done.add(row)
                    best = best_NK[number], ids_NK[number]
                    found[row].append(self._mask(batch.encodings[row], column, *best))
                    token_ids_BT[row, column] = ids_NK[number, 0]
                    open_BT[row, column] = False
        return [_filled(e.text, masks) for e, masks in zip(batch.encodings, found, strict=True)]

    def _mask(
        self, encoding: Encoding, column: int, best_K: torch.Tensor, ids_K: torch.Tensor
    ) -> Mask:
        tokens = [self.tokenizer.backend.id_to_token(index) or "" for index in ids_K.tolist()]
        listed = [
            Candidate(token, round(p, 4)) for token, p in zip(tokens, best_K.tolist(), strict=True)
        ]
        place = int(encoding.starts_T[column]), int(encoding.ends_T[column])
        return Mask(*place, listed[0].token, listed[0].probability, listed)

    def merge(self, example: Example, predictions: Sequence[Prediction]) -> Prediction:
        """Every mask as the window that was surest of it saw it."""
        best: dict[int, Mask] = {}
        for prediction in predictions:
            for mask in prediction.masks:
                known = best.setdefault(mask.start, mask)
                if (mask.probability or 0.0) >= (known.probability or 0.0):
                    best[mask.start] = mask
        return _filled(example.encoding.text, list(best.values()))

    def facts(self, prediction: Prediction) -> dict[Any, str]:
        """(place, token) of every mask."""
        return {(mask.start, mask.token): mask.token for mask in prediction.masks}

    def score(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
        """Accuracy over masks, and the share of texts that are right as a whole."""
        texts = whole = masks = right = 0
        for gold, prediction in pairs:
            shared = self.facts(gold).keys() & self.facts(prediction).keys()
            texts += 1
            whole += len(shared) == len(gold.masks)
            masks += len(gold.masks)
            right += len(shared)
        return {
            "accuracy": round(right / max(1, masks), 6),
            "exact_match": round(whole / max(1, texts), 6),
            "masks": masks,
            "match": "strict",
        }

    def report(self, example: Example) -> Iterator[Finding]:
        """Hidden tokens that are never predicted: special ones, as an unknown character is one."""
        for mask in example.gold.masks if example.gold else ():
            if self.vocabulary[mask.token] in self.special:
                message = f"the mask at {mask.start} hides {mask.token}, which is never predicted"
                yield Finding("never predicted", message, (mask.start, mask.token))


def _filled(text: str, masks: list[Mask]) -> Prediction:
    """The text with the masks' tokens in their places, and the masks in order."""
    parts, end = [], 0
    for mask in sorted(masks, key=lambda mask: mask.start):
        parts += [text[end : mask.start], mask.token.removeprefix("##")]
        end = mask.end
    return Prediction("".join([*parts, text[end:]]), sorted(masks, key=lambda mask: mask.start))
