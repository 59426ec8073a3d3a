r"""Half pointers: every token is, or is not, the first of a span; and is, or is not, the last of one.

Nearly all tokens are neither, so the sigmoid is raised to a power, which starts it lower:

    p = sigmoid(x)^n        score = log(p / (1 - p))        loss = binary cross entropy of p

A first token goes with the nearest last token from it on whose score is above 0; where there is
none near, with the best. So spans may overlap, but one within another that starts where the other
starts is not found beside it.

Source: https://kexue.fm/archives/6671 (pointers), /7161 (power).
Differs from them: the best last token where none is above the threshold, so that the spans do not
depend on it and it can be tuned.
Legend: leading dimensions "..." (texts; texts and predicates), T tokens.
"""

from __future__ import annotations

import math

import torch
from torch import nn

LONGEST = 64
"""Tokens of a span."""


def log_powered(logits: torch.Tensor, power: int) -> torch.Tensor:
    """log p of p = sigmoid(x)^power, in float32."""
    return power * nn.functional.logsigmoid(logits.float())


def _log_of_rest(log_p: torch.Tensor) -> torch.Tensor:
    """log(1 - p), exact for p near 0 and near 1."""
    return (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny).log()


def logit_of(p: float, power: int) -> float:
    """The x for which sigmoid(x)^power is p."""
    root = p ** (1 / power)
    return math.log(root / (1 - root))


def scores(logits: torch.Tensor, power: int) -> torch.Tensor:
    """log(p / (1 - p)): 0 where p is a half."""
    log_p = log_powered(logits, power)
    return log_p - _log_of_rest(log_p)


def pointer_losses(logits: torch.Tensor, targets: torch.Tensor, power: int) -> torch.Tensor:
    """The cross entropy of every logit; `targets` are bool, of the same shape."""
    log_p = log_powered(logits, power)
    return -torch.where(targets, log_p, _log_of_rest(log_p))


def spans_from(
    start: torch.Tensor, end: torch.Tensor, allowed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(last token, score) of the span that starts at every token: both (..., T).

    Takes the scores of first and last tokens, and which tokens are allowed, which broadcasts to
    them. The score is the smaller of the two; -inf where a token is not allowed.
    """
    end = end.masked_fill(~allowed, -torch.inf)
    length = end.shape[-1]
    position_T = torch.arange(length, device=end.device)
    is_last = end > 0
    far = torch.full_like(position_T, length + LONGEST)
    next_last = torch.where(is_last, position_T, far).flip(-1).cummin(-1).values.flip(-1)
    padded = nn.functional.pad(end, (0, LONGEST - 1), value=-torch.inf)
    best_last = padded.unfold(-1, LONGEST, 1).argmax(-1) + position_T
    is_near = next_last < position_T + LONGEST
    last = torch.where(is_near, next_last, best_last.clamp(max=length - 1))
    score = torch.minimum(start, end.gather(-1, last))
    return last, score.masked_fill(~allowed, -torch.inf)
