r"""How a branch F (attention, feed-forward) is added to what went into it, and norms.

    post         x' = norm(x + F(x))             a branch's share at the start shrinks with depth
    pre          x' = x + F(norm(x))             equal shares; x grows, so a last norm follows them
    rezero       x' = x + alpha F(x)             alpha learns, from 0: every block starts as x
    scheduled    x' = x + alpha F(x)             alpha = min(1, steps / WARM_UP), steps of training

    layer        gamma (x - mean(x)) / sqrt(var(x) + epsilon) + beta
    rms          gamma x / sqrt(mean(x^2) + epsilon)

Neither of the last two residuals has a norm.

Source: https://kexue.fm/archives/8620; Xiong et al. 2020, arxiv.org/abs/2002.04745: pre; Bachlechner
et al. 2020, arxiv.org/abs/2003.04887: rezero; Zhang and Sennrich 2019, arxiv.org/abs/1910.07467: rms.
Differs from Bachlechner et al.: attention and feed-forward layer have an alpha each.
Legend: B batch, T tokens, H hidden, I what comes out of a branch before its last layer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

NewNorm = Callable[[], nn.Module]


class PostNorm(nn.Module):
    """The last layer of a branch, and the norm of the sum. `new_norm` makes a norm of H numbers."""

    has_last_norm = False
    """Whether a norm has to follow the last block."""

    def __init__(self, dense: nn.Linear, new_norm: NewNorm, dropout: float):
        super().__init__()
        self.dense = dense
        self.LayerNorm = new_norm()
        self.dropout = nn.Dropout(dropout)

    def enter(self, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """What the branch reads, (B, T, H)."""
        return hidden_BTH

    def forward(self, inner_BTI: torch.Tensor, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """hidden_BTH behind the branch, of what was in it and of what went in."""
        return self.LayerNorm(self.dropout(self.dense(inner_BTI)) + hidden_BTH)


class PreNorm(PostNorm):
    """The norm stands before the branch."""

    has_last_norm = True

    def enter(self, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """What the branch reads, (B, T, H)."""
        return self.LayerNorm(hidden_BTH)

    def forward(self, inner_BTI: torch.Tensor, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """hidden_BTH behind the branch."""
        return hidden_BTH + self.dropout(self.dense(inner_BTI))


class ReZero(PostNorm):
    """The branch has a weight that learns."""

    def __init__(self, dense: nn.Linear, new_norm: NewNorm, dropout: float):
        super().__init__(dense, nn.Identity, dropout)
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, inner_BTI: torch.Tensor, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """hidden_BTH behind the branch."""
        return hidden_BTH + self.alpha * self.dropout(self.dense(inner_BTI))


class Scheduled(PostNorm):
    """The branch has a weight that grows with the steps of training, which the trainer counts."""

    def __init__(self, dense: nn.Linear, new_norm: NewNorm, dropout: float, warm_up: int):
        super().__init__(dense, nn.Identity, dropout)
        self.warm_up = warm_up
        self.steps: torch.Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def count_examples(self, examples: int) -> None:
        """The trainer calls this after a step, whatever the number of its examples."""
        self.steps += 1

    def forward(self, inner_BTI: torch.Tensor, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """hidden_BTH behind the branch."""
        alpha = (self.steps / self.warm_up).clamp(max=1.0).to(hidden_BTH.dtype)
        return hidden_BTH + alpha * self.dropout(self.dense(inner_BTI))


RESIDUALS: dict[str, type[PostNorm]] = {
    "post": PostNorm,
    "pre": PreNorm,
    "rezero": ReZero,
    "scheduled": Scheduled,
}


class RMSNorm(nn.Module):
    """The norm `rms` of the module docstring, in float32 also under autocast."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """(..., H) to (..., H)."""
        wide_BTH = hidden_BTH.to(self.weight.dtype)
        mean_BT1 = wide_BTH.square().mean(-1, keepdim=True)
        return self.weight * wide_BTH * torch.rsqrt(mean_BT1 + self.eps)


NORMS: dict[str, Callable[..., nn.Module]] = {"layer": nn.LayerNorm, "rms": RMSNorm}
"""Name -> what makes the norm of (size, eps=...)."""
