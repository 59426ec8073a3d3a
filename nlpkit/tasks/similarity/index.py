"""The vectors of a knowledge base in half precision, and the exact search among them.

    index = build(model, sentences, tokens_of, folder)      once for these weights
    scores_BK, rows_BK = index.nearest(vectors_BH, 10)

The file `RUN/.vectors-KEY` holds the vectors one after another, float16, and the sha256 of them
behind; it is mapped into memory. KEY names the sentences, the weights, the settings and the number
type, so that nothing stale is ever read; a damaged file is made again. Where the folder cannot be
written the vectors stay in memory.

Search: products with PART sentences at a time, of each block the best, of these the best, whose
cosines are then computed row by row, so that they do not depend on what else is asked. With
`similarity.project` both sides are projected first (see `projection`).

Legend: M sentences, B queries, H size of a vector, K neighbours.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nlpkit.errors import NlpkitError
from nlpkit.jsonl import check_writable, write_atomic
from nlpkit.tasks.similarity.model import Model
from nlpkit.tasks.similarity.projection import project
from nlpkit.text.tokenizer import TokenBatch

NAME = ".vectors-"
BLOCK = 1 << 16
"""Sentences among which the best are looked for together."""
PART = 1 << 11
"""Sentences of one product: ten times as fast as a product of a block (256 numbers, one query)."""
SPARE = 8
"""Neighbours more than asked for, of which the exact cosines then choose."""
CHUNK = 1 << 14
"""Sentences that are sorted by length together while they are encoded."""
ENCODED = 64
"""Sentences of one batch."""
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Index:
    """vectors_MH: float16, of length 1; `numbers`: to how many they were projected, 0 for all."""

    vectors_MH: np.ndarray
    numbers: int = 0

    def nearest(self, query_BH: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(cosines_BK, rows_BK) of the `most` sentences with the largest cosine, or of all where
        there are fewer; the best first, of equal ones the one that stands first."""
        query_BH = project(query_BH, self.numbers)
        wanted = min(most + SPARE, len(self.vectors_MH))
        best_BS = query_BH.new_empty(len(query_BH), 0)
        rows_BS = torch.empty(len(query_BH), 0, dtype=torch.int64)
        for first in range(0, len(self.vectors_MH), BLOCK):
            scores_BM = self._scores(query_BH, first)
            some_BS, places_BS = scores_BM.topk(min(wanted, scores_BM.shape[1]))
            best_BS = torch.cat([best_BS, some_BS], 1)
            rows_BS = torch.cat([rows_BS, places_BS + first], 1)
            best_BS, kept_BS = best_BS.topk(min(wanted, best_BS.shape[1]))
            rows_BS = rows_BS.gather(1, kept_BS)
        rows_BS = rows_BS.sort(1).values
        found = [self._cosines(*pair) for pair in zip(query_BH, rows_BS, strict=True)]
        exact_BS, order_BS = torch.stack(found).sort(dim=1, descending=True, stable=True)
        return exact_BS[:, :most], rows_BS.gather(1, order_BS)[:, :most]

    def _scores(self, query_BH: torch.Tensor, first: int) -> torch.Tensor:
        """The cosines with a block of sentences, (B, M), from PART of them at a time: what half
        precision is widened to stays in the cache."""
        block_MH = torch.from_numpy(self.vectors_MH[first : first + BLOCK])
        scores_BM = query_BH.new_empty(len(query_BH), len(block_MH))
        for start in range(0, len(block_MH), PART):
            part_MH = block_MH[start : start + PART].float()
            scores_BM[:, start : start + PART] = query_BH @ part_MH.T
        return scores_BM

    def _cosines(self, query_H: torch.Tensor, rows_S: torch.Tensor) -> torch.Tensor:
        chosen_SH = torch.from_numpy(self.vectors_MH[rows_S.numpy()]).float()
        return (chosen_SH * query_H).sum(1)


def index_of(
    model: Model,
    texts: list[str],
    tokens_of: Callable[[list[str]], TokenBatch],
    key: str,
    folder: Path | None,
) -> Index:
    """The index of the sentences with the model as it is; built where there is none yet.

    Args:
        key: what the vectors depend on besides the weights.
        folder: of the run that keeps the file; None keeps nothing.

    Several threads may call it at once: one builds, the others wait.
    """
    with _LOCK:
        if model.index is None or model.index[0] != key:
            model.index = key, _index(model, texts, tokens_of, key, folder)
        return model.index[1]


def _index(
    model: Model,
    texts: list[str],
    tokens_of: Callable[[list[str]], TokenBatch],
    key: str,
    folder: Path | None,
) -> Index:
    numbers = model.config.project
    shape = len(texts), numbers or model.encoder.hidden_size
    if folder is None:
        return Index(np.concatenate(list(_encoded(model, texts, tokens_of))), numbers)
    hashed = hashlib.sha256(f"{key} {_weights_sha256(model)}".encode()).hexdigest()
    path = folder / f"{NAME}{hashed[:32]}"
    kept = _read(path, shape)
    if kept is None:
        try:
            _write(path, _encoded(model, texts, tokens_of))
        except NlpkitError:  # a folder that cannot be written
            return Index(np.concatenate(list(_encoded(model, texts, tokens_of))), numbers)
        kept = _mapped(path, shape)
    return Index(kept, numbers)


def _encoded(
    model: Model, texts: list[str], tokens_of: Callable[[list[str]], TokenBatch]
) -> Iterator[np.ndarray]:
    """The vectors of CHUNK sentences after another, float16, in the order of the sentences."""
    device = next(model.parameters()).device
    numbers = model.config.project
    for first in range(0, len(texts), CHUNK):
        chunk = texts[first : first + CHUNK]
        order = sorted(range(len(chunk)), key=lambda row: len(chunk[row]))
        vectors_MH = np.zeros((len(chunk), numbers or model.encoder.hidden_size), np.float16)
        for start in range(0, len(order), ENCODED):
            rows = order[start : start + ENCODED]
            tokens = tokens_of([chunk[row] for row in rows]).to(device)
            with torch.inference_mode():
                vectors_MH[rows] = project(model.vectors(tokens), numbers).numpy()
        yield vectors_MH


def _weights_sha256(model: Model) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, vectors: Iterator[np.ndarray]) -> None:
    check_writable(path)
    digest = hashlib.sha256()
    with write_atomic(path) as stream:
        for vectors_MH in vectors:
            raw = vectors_MH.tobytes()
            digest.update(raw)
            stream.write(raw)
        stream.write(digest.digest())


def _mapped(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Changes to it, of which there are none, would not reach the file: torch asks for this."""
    return np.memmap(path, np.float16, "c", shape=shape)


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The vectors of a file, mapped; None where there is none, or it is damaged."""
    size = 2 * shape[0] * shape[1]
    digest = hashlib.sha256()
    if not path.is_file() or path.stat().st_size != size + digest.digest_size:
        return None
    vectors_MH = _mapped(path, shape)
    for first in range(0, shape[0], BLOCK):
        digest.update(vectors_MH[first : first + BLOCK].tobytes())
    with path.open("rb") as stream:
        stream.seek(size)
        return vectors_MH if stream.read() == digest.digest() else None
