"""Trees of lines of text by an encoder with ordered neurons, and how well they agree with words.

There is no treebank, but a word should be a part of any tree of its sentence. The share of the
words that are, of two tokens or more, tells trees from those that know nothing: the one that
branches to the right, the balanced one, and those of random levels, which are cut by the same rule.
The words are jieba's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from nlpkit import encoders
from nlpkit.encoders.trees import Node, balanced_tree, constituents, tree_of_levels
from nlpkit.errors import DataError, RecordError, SettingsError
from nlpkit.inference.batching import split
from nlpkit.inference.predictor import MAX_TOKENS
from nlpkit.inference.seeds import best_run
from nlpkit.inference.windows import WINDOW, windows_ahead
from nlpkit.jsonl import Line, dumps, with_field
from nlpkit.layers.steady_products import steady
from nlpkit.run import load
from nlpkit.text.tokenizer import Encoding, Tokenizer
from nlpkit.text.words import word_lengths


class Tree(NamedTuple):
    """The tree of a line. `record` is its object, None where the line is plain text."""

    line: Line
    record: dict[str, Any] | None
    encoding: Encoding
    nodes: list[Node]

    @property
    def tokens(self) -> list[str]:
        """The tokens as the text has them."""
        starts = self.encoding.starts_T[1:-1]
        ends = self.encoding.ends_T[1:-1]
        text = self.encoding.text
        return [text[start:end] for start, end in zip(starts, ends, strict=True)]

    def output(self, brackets: str) -> bytes:
        """The line as JSON with `tree`, its brackets, and `constituents`: the [start, end) of all
        parts of two tokens or more, in characters."""
        spans = []
        for start, end in constituents(self.nodes):
            spans.append(self.encoding.char_span((start + 1, end + 1)))
        record = self.record
        raw = self.line.raw
        if record is None:
            record = {"text": self.encoding.text}
            raw = dumps(record)
        return with_field(
            with_field(raw, record, "tree", brackets),
            {**record, "tree": brackets},
            "constituents",
            spans,
        )


class TreeReader:
    """An encoder and the layer whose gates tell the trees, counted from 1; None for the middle one.

    Raises SettingsError for an encoder without ordered neurons, and for a layer that there is not.
    """

    def __init__(self, encoder: Any, tokenizer: Tokenizer, layer: int | None = None):
        if not hasattr(encoder, "levels"):
            kind = encoder.spec()["kind"]
            raise SettingsError(
                f"trees: expected an encoder with ordered neurons, got one of the kind {kind}",
                hint="nlpkit encoder pretrain TEXT --encoder on_lstm --out DIR makes one",
            )
        self.encoder = encoder.eval()
        self.tokenizer = tokenizer
        self.layer = (encoder.depth + 1) // 2 if layer is None else layer
        steady(encoder)
        encoder.levels(torch.zeros(1, 1, dtype=torch.long), self.layer)

    def trees(self, lines: Iterable[Line]) -> Iterator[Tree]:
        """The trees of lines, in their order. A line that begins with { is a record with `text`,
        any other is text. Raises DataError for a record that is none, after the lines before it."""
        for window in windows_ahead(lines, WINDOW):
            read = []
            failure: Exception | None = None
            for line in window:
                try:
                    read.append(self._read(line))
                except Exception as error:  # noqa: BLE001 - raised when the lines before are out
                    failure = error
                    break
            encodings = [encoding for _, _, encoding in read]
            for (line, record, encoding), levels in zip(read, self.levels(encodings), strict=True):
                yield Tree(line, record, encoding, tree_of_levels(levels))
            if failure is not None:
                raise failure

    def _read(self, line: Line | Exception) -> tuple[Line, dict[str, Any] | None, Encoding]:
        if isinstance(line, Exception):  # of the reader, behind the lines before it
            raise line
        record = None
        text: Any = line.text()
        if text.startswith("{"):
            record = line.record_here()
            text = record.get("text")
            if not isinstance(text, str):
                raise RecordError('expected a string in "text"').at(line.where)
        return line, record, self.tokenizer.encode(text)

    @torch.inference_mode()
    def levels(self, encodings: Sequence[Encoding]) -> list[np.ndarray]:
        """The levels (tokens,) of texts, without [CLS] and [SEP]."""
        found: list[Any] = [None] * len(encodings)
        lengths = [len(encoding) for encoding in encodings]
        for indices in split(range(len(encodings)), lengths, MAX_TOKENS):
            batch = self.tokenizer.collate([encodings[index] for index in indices])
            level_BT = self.encoder.levels(batch.token_ids_BT, self.layer).numpy()
            for index, level_T in zip(indices, level_BT, strict=True):
                found[index] = level_T[1 : lengths[index] - 1]
        return found


def open_trees(source: str, layer: int | None = None) -> TreeReader:
    """The reader of a run, a folder of seeds (its best run), or an encoder. Raises SettingsError
    where it does not load, and as `TreeReader` does."""
    folder = Path(source)
    if not encoders.is_encoder(folder):
        run = load(best_run(folder))
        return TreeReader(run.model.encoder, run.tokenizer, layer)
    encoder, tokenizer = encoders.load(source, encoders.settings_of(source)())
    reader = TreeReader(encoder, tokenizer, layer)
    if source in encoders.names():
        raise SettingsError(
            f"{source}: its weights are random before it is pretrained",
            hint=f"nlpkit encoder pretrain TEXT --encoder {source} --out DIR",
        )
    return reader


def agreement(trees: Iterable[Tree], seed: int = 1) -> dict[str, Any]:
    """`sentences`, `words`, and the share of the words that are parts of the trees (`trees`), of
    the trees that branch to the right, of balanced and of random ones.

    A word counts that has two tokens or more and is not its whole line. Raises DataError where
    there is none.
    """
    random = np.random.default_rng(seed)
    makers: dict[str, Callable[[Tree], list[Node]]] = {
        "trees": lambda tree: tree.nodes,
        "right_branching": lambda tree: tree_of_levels(np.zeros(len(tree.tokens))),
        "balanced": lambda tree: balanced_tree(len(tree.tokens)),
        "random": lambda tree: tree_of_levels(random.random(len(tree.tokens))),
    }
    found = dict.fromkeys(makers, 0)
    sentences = 0
    words = 0
    for tree in trees:
        spans = set(word_spans(tree.encoding))
        sentences += 1
        words += len(spans)
        for name, make in makers.items():
            found[name] += len(spans.intersection(constituents(make(tree))))
    if not words:
        raise DataError("agreement: no word of two tokens or more in the lines")
    shares = {name: round(count / words, 4) for name, count in found.items()}
    return {"sentences": sentences, "words": words, **shares}


def word_spans(encoding: Encoding) -> list[tuple[int, int]]:
    """The tokens [start, end), counted from 0 without [CLS], of jieba's words of two tokens or more
    that are not the whole text."""
    spans = []
    start = 0
    for length in word_lengths(encoding.text):
        span = encoding.token_span((start, start + length))
        start += length
        if span is not None and 1 < span[1] - span[0] < len(encoding) - 2:
            spans.append((span[0] - 1, span[1] - 1))
    return spans
