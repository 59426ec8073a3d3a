r"""A softmax whose exponential is a polynomial, the first terms of its series:

    weight_k = f(score_k) / sum_j f(score_j),    f(x) = sum_i x^i / i! up to an even n

which is positive everywhere. It falls to the left of its least value, at LEAST[n]; smaller scores
are taken as that, so that a larger score never has a smaller weight. Next to exp, f(x) is flat: no
weight comes close to 0, and large scores pull less. A score below the least value has no gradient.

The softmax of log f(score) is the same: `TaylorScores` are such scores, for losses and predictions
that have a softmax of their own.

Source: https://kexue.fm/archives/7919; de Brebisson and Vincent 2015, arxiv.org/abs/1511.05042.
Differs from both: the scores are cut off at the least value.
Legend: X any dimensions, K what is weighed.
"""

from __future__ import annotations

import torch

from nlpkit.layers.steady_products import SteadyLinear

LEAST = {
    2: -1.0,
    4: -1.5960716379833215,
    6: -2.180607124035126,
    8: -2.759002709962272,
    10: -3.333551485269049,
}
"""Order -> where f is least: the root of f of one order less."""


def exponential(score: torch.Tensor, order: int) -> torch.Tensor:
    """f of the module docstring, of any shape. `order` is one of LEAST."""
    score = score.clamp_min(LEAST[order])
    value = torch.ones_like(score)
    for power in range(order, 0, -1):
        value = 1 + value * score / power
    return value


def taylor_softmax(
    score_XK: torch.Tensor, order: int, hidden_XK: torch.Tensor | None = None
) -> torch.Tensor:
    """weight_XK, in the type of the scores. Where `hidden_XK` is true the weight is 0; a row of
    which all is hidden has equal weights. On a CPU hidden scores behind the others change no bit of
    their weights: they are summed by a softmax, whose sums zeros do not move."""
    log_XK = exponential(score_XK, order).log()
    if hidden_XK is not None:
        log_XK = log_XK.masked_fill(hidden_XK, torch.finfo(log_XK.dtype).min)
    return log_XK.softmax(-1)


class TaylorScores(SteadyLinear):
    """A linear layer and log f: the softmax of what it gives is that of the module docstring."""

    def __init__(self, inputs: int, outputs: int, order: int):
        super().__init__(inputs, outputs)
        self.order = order

    def forward(self, input_XH: torch.Tensor) -> torch.Tensor:
        """(..., H) to (..., K), in the type of the weights, also under autocast."""
        score_XK = super().forward(input_XH).to(self.weight.dtype)
        return exponential(score_XK, self.order).log()
