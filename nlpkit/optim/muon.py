r"""Muon for the matrices inside a network, AdamW for everything else, as one optimizer.

    M <- mu M + G,   U = NewtonSchulz(G + mu M) ~ (M M^T)^{-1/2} M
    W <- W - eta (0.2 sqrt(max(rows, columns)) U + lambda W)

The factor gives an update the size that AdamW's usually has, so that both take the same learning
rate. Muon is for matrices that map hidden vectors to hidden vectors; embeddings, the output layer,
vectors and scalars go to AdamW. The heads of an attention are matrices of their own: what one of
them looks for is no matter of the others, and small matrices cost little. Sources: Jordan et al.
2024, kellerjordan.github.io/posts/muon; Liu, Su et al. 2025, arxiv.org/abs/2502.16982, equation 4
(factor, decay); https://kexue.fm/archives/10592; Amsel et al. 2025, arxiv.org/abs/2505.16932
(polynomials).
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
_POLYNOMIALS = (
    (8.4052, -24.8508, 18.4246),
    (4.0772, -3.0350, 0.5722),
    (3.6058, -2.6996, 0.5340),
    (2.6177, -1.9413, 0.4486),
)
"""(a, b, c) of `a s + b s^3 + c s^5`, one after another: each of them the one nearest to 1 wherever
those before it leave a singular value that began between 1/400 and 1."""


def new_optimizer(groups: Sequence[Group], bf16: bool) -> Muon:
    """Muon for the groups that are `hidden`, AdamW for the others."""
    settings = [
        {**group.settings(), "muon": group.hidden, "parts": group.parts} for group in groups
    ]
    return Muon(settings, torch.bfloat16 if bf16 else torch.float32)


class Muon(torch.optim.Optimizer):
    """`groups` are those of AdamW with a key `muon`: whether their parameters, all matrices, get
    Muon's update, and then a key `parts` with (rows, columns) of each: how many matrices it is.

    `precision` is that of the iteration; bfloat16 is enough, and faster where the hardware
    multiplies in it.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], precision: torch.dtype = torch.float32):
        defaults = {"lr": 1e-3, "weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8}
        # `fused` tells torch to keep the step counts on the device when a state is loaded
        super().__init__(groups, {**defaults, "muon": False, "parts": (), "fused": True})
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            (self._muon if group["muon"] else self._adamw)(parameters, group)

    def _muon(self, parameters: list[torch.nn.Parameter], group: dict[str, Any]) -> None:
        parts = dict(zip(map(id, group["params"]), group["parts"], strict=True))
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"]
            momentum.mul_(MOMENTUM).add_(parameter.grad)
            direction = (parameter.grad + MOMENTUM * momentum).to(self.precision)
            update = orthogonal(direction, parts[id(parameter)])
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


def orthogonal(matrix: torch.Tensor, parts: tuple[int, int] = (1, 1)) -> torch.Tensor:
    """Nearly the orthogonal factor U V^T of a matrix U S V^T, (M, N) both; with `parts` (rows,
    columns) that of each of so many equal parts. Singular values of at least 1/400 of their
    root sum of squares end between 0.75 and 1.26, smaller ones grow by 323 or less."""
    rows, columns = parts
    cut_RmCn = matrix.unflatten(0, (rows, -1)).unflatten(2, (columns, -1))
    cut_RCmn = cut_RmCn.transpose(1, 2)
    wide = cut_RCmn.shape[-2] <= cut_RCmn.shape[-1]
    found = cut_RCmn if wide else cut_RCmn.mT
    norm_RC11 = found.norm(dim=(-2, -1), keepdim=True)
    found = _iterated((found / (norm_RC11 + 1e-7)).flatten(0, 1))
    found = found.unflatten(0, (rows, columns))
    found = found if wide else found.mT
    return found.transpose(1, 2).reshape(matrix.shape)


def _iterated(matrix_Xmn: torch.Tensor) -> torch.Tensor:
    """The polynomials applied to the singular values of wide or square matrices."""
    rows, columns = matrix_Xmn.shape[1:]
    if columns >= 2 * rows and matrix_Xmn.dtype != torch.bfloat16:
        return _factor(matrix_Xmn @ matrix_Xmn.mT) @ matrix_Xmn
    for a, b, c in _POLYNOMIALS:
        gram = matrix_Xmn @ matrix_Xmn.mT
        odd = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        matrix_Xmn = torch.baddbmm(matrix_Xmn, odd, matrix_Xmn, beta=a)
    return matrix_Xmn


def _factor(gram_Xmm: torch.Tensor) -> torch.Tensor:
    """What a matrix X with X X^T = gram is multiplied with by all polynomials: the same iteration
    without the long side of X. It needs more digits than bfloat16 has."""
    steps: list[torch.Tensor] = []
    for a, b, c in _POLYNOMIALS:
        if steps:
            gram_Xmm = steps[-1] @ gram_Xmm @ steps[-1]
        step = torch.baddbmm(gram_Xmm, gram_Xmm, gram_Xmm, beta=b, alpha=c)
        step.diagonal(dim1=1, dim2=2).add_(a)
        steps.append(step)
    return functools.reduce(torch.matmul, reversed(steps))
