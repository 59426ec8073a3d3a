r"""Muon for the matrices inside a network, AdamW for everything else, as one optimizer.

    M <- mu M + G,   U = NewtonSchulz(G + mu M) ~ (M M^T)^{-1/2} M
    W <- W - eta (0.2 sqrt(max(rows, columns)) U + lambda W)

The factor gives an update the size that AdamW's usually has, so that both take the same learning
rate. Muon is for matrices that map hidden vectors to hidden vectors; embeddings, the output layer,
vectors and scalars go to AdamW. Sources: Jordan et al. 2024, kellerjordan.github.io/posts/muon
(iteration and its coefficients); Liu, Su et al. 2025, arxiv.org/abs/2502.16982, equation 4 (factor,
decay); https://kexue.fm/archives/10592.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from nlpkit.optim.groups import Group

LEARNING_RATES = {"convolutions": 1.5e-3, "random": 3e-3, "pretrained": 1e-3, "elsewhere": 3e-5}
# pretrained: in ten thousand steps with more of it what was learned would be forgotten
SUITS = ("random", "pretrained")
MOMENTUM = 0.95
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def new_optimizer(groups: Sequence[Group], bf16: bool) -> Muon:
    """Muon for the groups that are `hidden`, AdamW for the others."""
    settings = [{**group.settings(), "muon": group.hidden} for group in groups]
    return Muon(settings, torch.bfloat16 if bf16 else torch.float32)


class Muon(torch.optim.Optimizer):
    """`groups` are those of AdamW with a key `muon`: whether their parameters, all matrices, get
    Muon's update.

    `precision` is that of the iteration; bfloat16 is enough, and faster where the hardware
    multiplies in it.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], precision: torch.dtype = torch.float32):
        defaults = {"lr": 1e-3, "weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8}
        # `fused` tells torch to keep the step counts on the device when a state is loaded
        super().__init__(groups, {**defaults, "muon": False, "fused": True})
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            (self._muon if group["muon"] else self._adamw)(parameters, group)

    def _muon(self, parameters: list[torch.nn.Parameter], group: dict[str, Any]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"]
            momentum.mul_(MOMENTUM).add_(parameter.grad)
            update = orthogonal((parameter.grad + MOMENTUM * momentum).to(self.precision))
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-group["lr"] * 0.2 * max(parameter.shape) ** 0.5)

    def _adamw(self, parameters: list[torch.nn.Parameter], group: dict[str, Any]) -> None:
        if not parameters:
            return
        states = [self.state[p] for p in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state |= {
                    "step": torch.zeros((), device=parameter.device),
                    "mean": torch.zeros_like(parameter),
                }
                state["square"] = torch.zeros_like(parameter)
        torch._foreach_add_([state["step"] for state in states], 1)
        torch._fused_adamw_(
            list(parameters),
            [p.grad for p in parameters if p.grad is not None],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [],
            [state["step"] for state in states],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Nearly the orthogonal factor U V^T of a matrix U S V^T, (M, N) both: its singular values end
    between about 0.7 and 1.2."""
    wide = matrix.shape[0] <= matrix.shape[1]
    found = matrix if wide else matrix.T
    found = found / (found.norm() + 1e-7)
    rows, columns = found.shape
    if columns >= 2 * rows and matrix.dtype != torch.bfloat16:
        found = _factor(found @ found.T) @ found
    else:
        found = _iterated(found)
    return found if wide else found.T


def _iterated(found: torch.Tensor) -> torch.Tensor:
    """The iteration itself, X <- (a I + b X X^T + c (X X^T)^2) X, of a matrix that is not high."""
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found


def _factor(gram: torch.Tensor) -> torch.Tensor:
    """What the iteration multiplies a matrix X with X X^T = `gram` by in all: it need not touch the
    long side of X in between. Squares want more digits than bfloat16 has."""
    a, b, c = _COEFFICIENTS
    steps: list[torch.Tensor] = []
    for _ in range(_ITERATIONS):
        if steps:
            gram = steps[-1] @ gram @ steps[-1]
        step = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        step.diagonal().add_(a)
        steps.append(step)
    return functools.reduce(torch.matmul, reversed(steps))
