"""From examples to tensors.

Legend: B examples, R texts of all of them, K numbers of an example.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from nlpkit.tasks.similarity.examples import Example, Found, Pair
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import TokenBatch, Tokenizer


@dataclass(frozen=True)
class Batch(TensorFields):
    """The tokens of the texts, those of an example one after another; where gold is known, the
    groups, or what a loss over pairs has to know."""

    tokens: TokenBatch
    texts: tuple[int, ...]
    """Of each example: 1 or 2, so many rows of `tokens`."""
    groups_B: torch.Tensor | None = None
    """Numbers of the groups, int64."""
    numbers_BK: torch.Tensor | None = None
    """Label or grade (1 of a group), and a number that names each of the two texts or their group:
    float64, K = 3."""


def collate(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    targets: bool,
    group_ids: Mapping[str, int] | None,
) -> Batch:
    """The texts padded.

    `group_ids` are the numbers of the groups where these are classes, else None: then texts are
    compared, and one without a partner is its own, since dropout makes two vectors of it.
    """
    texts = [example.texts for example in examples]
    if targets and group_ids is None:
        texts = [some if len(some) == 2 else (some[0], some[0]) for some in texts]
    tokens = tokenizer.collate([encoding for some in texts for encoding in some])
    counts = tuple(map(len, texts))
    if not targets:
        return Batch(tokens, counts)
    if group_ids is None:
        rows = [_numbers(example) for example in examples]
        return Batch(tokens, counts, numbers_BK=torch.tensor(rows, dtype=torch.float64))
    ids = []
    for example in examples:
        group = example.gold.group if isinstance(example.gold, Found) else None
        ids.append(group_ids[str(group)])
    return Batch(tokens, counts, groups_B=torch.tensor(ids))


def _numbers(example: Example) -> tuple[float, int, int]:
    gold = example.gold
    if isinstance(gold, Found):
        name = _number(f"group {gold.group}")
        return 1.0, name, name
    label = gold.label if isinstance(gold, Pair) else None
    names = [_number(f"text {encoding.text}") for encoding in example.encodings]
    return 0.0 if label is None else label, names[0], names[-1]


def _number(name: str) -> int:
    """A number of 48 bits, which float64 holds exactly."""
    raw = name.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=6).digest(), "big")
