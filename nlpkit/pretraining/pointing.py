"""The head of span selection: every [MASK] points to the tokens at which what it hides starts and
ends elsewhere in its row.

    start(q, i) = f_s(x_q)' S g_s(x_i) / sqrt(H)        f, g: LayerNorm(GELU(W x + b))
    loss of q   = -log softmax_i start(q, i) at the gold start - the same of the end

Start and end are two softmaxes over all tokens of the row, as in the source: what is learned lies
in the tokens' vectors, and a reader has scores of its own.

Source: Ram et al. 2021, arxiv.org/abs/2101.00438, equations 1 to 4. Differs from it: the scores are
divided by sqrt(H), as in attention, so that they begin near 0.
B rows, T tokens, H hidden, K most [MASK]s of a row, Q all of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from nlpkit.text.batch import TensorFields


@dataclass(frozen=True)
class Pointers(TensorFields):
    """Columns of tokens: of each [MASK] that points, and of the first and the last token of what it
    points to. A row with fewer than K of them has -1 behind them, in all three."""

    mask_BK: torch.Tensor
    first_BK: torch.Tensor
    last_BK: torch.Tensor

    def are_there(self) -> torch.Tensor:
        """bool (B, K): whether there is such a [MASK]."""
        return self.mask_BK >= 0


class Pointing(nn.Module):
    """Scores of starts and of ends, from the vectors of an encoder."""

    def __init__(self, size: int):
        super().__init__()
        self.start = Pointer(size)
        self.end = Pointer(size)

    def forward(
        self, hidden_BTH: torch.Tensor, is_token_BT: torch.Tensor, pointers: Pointers
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(start_BKT, end_BKT) in float32, -inf at padding."""
        row_B1 = torch.arange(len(hidden_BTH), device=hidden_BTH.device)[:, None]
        masks_BKH = hidden_BTH[row_B1, pointers.mask_BK.clamp(min=0)]
        is_padding_B1T = ~is_token_BT[:, None, :]
        start_BKT = self.start(masks_BKH, hidden_BTH).float()
        end_BKT = self.end(masks_BKH, hidden_BTH).float()
        return (
            start_BKT.masked_fill(is_padding_B1T, float("-inf")),
            end_BKT.masked_fill(is_padding_B1T, float("-inf")),
        )

    def loss(
        self, hidden_BTH: torch.Tensor, is_token_BT: torch.Tensor, pointers: Pointers
    ) -> torch.Tensor:
        """loss_Q in nats, row after row; of a [MASK] its row alone decides."""
        start_BKT, end_BKT = self(hidden_BTH, is_token_BT, pointers)
        is_there_BK = pointers.are_there()
        start_QT, end_QT = start_BKT[is_there_BK], end_BKT[is_there_BK]
        first_Q, last_Q = pointers.first_BK[is_there_BK], pointers.last_BK[is_there_BK]
        start_loss_Q = nn.functional.cross_entropy(start_QT, first_Q, reduction="none")
        return start_loss_Q + nn.functional.cross_entropy(end_QT, last_Q, reduction="none")


class Pointer(nn.Module):
    """The score of every token of a row for every [MASK] of it."""

    def __init__(self, size: int):
        super().__init__()
        self.of_mask = feed_forward(size)
        self.of_token = feed_forward(size)
        self.product = nn.Linear(size, size, bias=False)

    def forward(self, masks_BKH: torch.Tensor, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """score_BKT."""
        asked_BKH = self.product(self.of_mask(masks_BKH))
        scale = hidden_BTH.shape[-1] ** -0.5
        return scale * asked_BKH @ self.of_token(hidden_BTH).transpose(1, 2)


def feed_forward(size: int) -> nn.Sequential:
    """The f and g of the module docstring."""
    return nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.LayerNorm(size))
