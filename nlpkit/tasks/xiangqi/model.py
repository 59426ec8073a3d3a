"""A language model of games: windows as rows of a prefix-LM.

    [CLS] position [SEP] h 2 e 2 h 9 g 7 ...
                      |  | | | | | | |       each predicts the next coordinate

    loss of a game = - sum over its coordinates log p(coordinate | window before it)     in nats

The position is the source, which is empty for the opening position. Logits are those of the
masked-LM head, of 20 symbols only (`symbols`). A game has a row for each of its windows.

Training can begin with short windows: with `curriculum` = C examples, the windows are cut to an
eighth of their length until C examples were seen, to a quarter until 2 C, to a half until 4 C.

Source: https://kexue.fm/archives/7877, which has C = 20,000 batches of 16, positions as FEN, and no
windows.
Legend: B games, R rows, T tokens, N coordinates, S symbols, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from nlpkit.encoders.base import check_attention, encode
from nlpkit.layers.prefix_lm import collate_sources
from nlpkit.tasks.xiangqi.game import Example, Window
from nlpkit.tasks.xiangqi.symbols import Symbols, spelled
from nlpkit.text.batch import TensorFields
from nlpkit.text.tokenizer import TokenBatch, Tokenizer


@dataclass(frozen=True)
class Rows(TensorFields):
    """The windows of some games, and for each coordinate where its predictor stands and what it
    is."""

    tokens: TokenBatch
    row_N: torch.Tensor
    column_N: torch.Tensor
    symbol_N: torch.Tensor
    place_N: torch.Tensor
    """Its number in its window, from 0."""
    game_N: torch.Tensor

    def cut(self, most: int) -> Rows:
        """Only the first `most` coordinates of each window."""
        kept_N = self.place_N < most
        column_N = self.column_N[kept_N]
        width = int(column_N.max()) + 1
        tokens = self.tokens
        shorter = {name: part[:, :width] for name, part in vars(tokens).items() if part is not None}
        return Rows(
            replace(tokens, **shorter),
            self.row_N[kept_N],
            column_N,
            self.symbol_N[kept_N],
            self.place_N[kept_N],
            self.game_N[kept_N],
        )


@dataclass(frozen=True)
class Batch(TensorFields):
    """Games; `rows` are for the loss."""

    examples: list[Example]
    rows: Rows | None


def collate_windows(
    windows: Sequence[Window], symbols: Symbols, tokenizer: Tokenizer
) -> TokenBatch:
    """[CLS] position [SEP] moves, padded to the longest."""
    sources = [symbols.source(window.position) for window in windows]
    moves = [symbols.target(window.moves) for window in windows]
    return collate_sources(sources, tokenizer, moves)


def collate_games(
    games: Sequence[Sequence[Window]], symbols: Symbols, tokenizer: Tokenizer
) -> Rows:
    """The rows of some games, each given as its windows."""
    windows = [window for game in games for window in game]
    tokens = collate_windows(windows, symbols, tokenizer)
    counts = [4 * len(window.moves) for window in windows]
    number_of_game = [number for number, game in enumerate(games) for _ in game]
    separator_R = tokens.mask_BT.sum(1) - torch.tensor(counts) - 1  # before the first coordinate
    counts_R = torch.tensor(counts)
    row_N = torch.arange(len(counts)).repeat_interleave(counts_R)
    place_N = torch.cat([torch.arange(count) for count in counts])
    coordinates: list[int] = []
    for window in windows:
        for move in window.moves:
            coordinates += spelled(move)
    return Rows(
        tokens=tokens,
        row_N=row_N,
        column_N=separator_R[row_N] + place_N,
        symbol_N=torch.tensor(coordinates, dtype=torch.int64),
        place_N=place_N,
        game_N=torch.tensor(number_of_game, dtype=torch.int64)[row_N],
    )


class Model(nn.Module):
    """A transformer with its masked-LM head, of which it asks for the 20 symbols only.

    `window` is in plies, `curriculum` in examples (0: none).
    """

    def __init__(self, encoder: Any, symbol_ids: Sequence[int], window: int, curriculum: int):
        super().__init__()
        check_attention(encoder, "prefix")
        self.encoder = encoder
        self.window = window
        self.curriculum = curriculum
        self.symbol_ids_S: torch.Tensor
        self.seen: torch.Tensor
        self.register_buffer("symbol_ids_S", torch.tensor(symbol_ids), persistent=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> torch.Tensor:
        """loss_B, the sum over all moves of a game, in nats."""
        assert batch.rows is not None  # collated with targets
        rows = batch.rows
        if self.training:
            rows = rows.cut(4 * self.plies())
        nats_N = self.nats(rows, self.logits(rows))
        loss_B = torch.zeros(len(batch.examples), device=nats_N.device)
        return loss_B.index_add(0, rows.game_N, nats_N)

    def plies(self) -> int:
        """How many plies of a window training reads now."""
        parts = 1
        for ends, cut_to in ((4, 2), (2, 4), (1, 8)):
            if int(self.seen) < ends * self.curriculum:
                parts = cut_to
        return max(1, self.window // parts)

    def count_examples(self, examples: int) -> None:
        """The trainer calls this after a step: so many games were seen, over all processes."""
        self.seen += examples

    def logits(self, rows: Rows) -> torch.Tensor:
        """logits_NS at the places that predict."""
        hidden_RTH = encode(self.encoder, rows.tokens, "prefix")
        hidden_NH = hidden_RTH[rows.row_N, rows.column_N]
        return self.encoder.token_logits(hidden_NH, self.symbol_ids_S)

    @staticmethod
    def nats(rows: Rows, logits_NS: torch.Tensor) -> torch.Tensor:
        """-log p of every coordinate: (N,)."""
        return nn.functional.cross_entropy(logits_NS.float(), rows.symbol_N, reduction="none")
