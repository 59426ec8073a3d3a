r"""A generator of vectors of a label, and the critic that tells them from real ones (a GAN), trained
in one loss with one optimizer.

    y = G(noise, label)
    loss = max(0, 1 + D(x)) + max(0, 1 - D(sg y)) + D(y) - D(sg y)          x real, sg: no gradient

D learns from the first two terms alone, since the others cancel for it; G from D(y) alone, which it
makes small, as D is of real vectors. Each example has its own loss, so that it does not depend on
how a batch is cut. D must change slowly with its input, by one of four ways (`CRITICS`), with g the
gradient of D by its input, whose own gradient is taken too:

    penalty              D, and the loss has penalty (||g|| - 1)^2 at a random place between x and y
    normalised           D / (||g|| + |D|)
    normalised_squared   D ||g|| / (||g||^2 + 1e-6)
    spectral             D of matrices W / sigma(W), sigma the largest singular value

Where D is linear nearby (it is piecewise so) the second has a gradient of length
(||g|| / (||g|| + |D|))^2, at most 1, the third one near 1; both jump where the pieces meet.

Source: https://kexue.fm/archives/6387 (one loss), https://kexue.fm/archives/8757 and Wu et al. 2021,
arxiv.org/abs/2109.02235, and Bhaskara et al. 2022, arxiv.org/abs/2111.03162 (normalised, in this
order); Gulrajani et al. 2017, arxiv.org/abs/1704.00028 (penalty); Miyato et al. 2018,
arxiv.org/abs/1802.05957 (spectral), https://kexue.fm/archives/6051.
Legend: B examples, P numbers of a vector, N of the noise, I and O of a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

CRITICS = ("penalty", "normalised", "normalised_squared", "spectral")
HIDDEN = 256
"""Numbers of a layer between."""
SLOPE = 0.2
"""Of the leaky rectifiers below 0."""
FIRST = 30
"""Iterations of the singular vectors before the first step."""

Score = Callable[[torch.Tensor], torch.Tensor]
"""vectors_BP -> D_B"""


class SpectralLinear(nn.Linear):
    """A linear layer with the weights W / (u^T W v). u moves by one power iteration a step, when the
    trainer counts its examples, and not in a forward pass; v follows from it."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.u_O: torch.Tensor
        drawn_O = nn.init.normal_(torch.empty(outputs))
        self.register_buffer("u_O", F.normalize(drawn_O, dim=0))
        for _ in range(FIRST):
            self.count_examples(0)

    def count_examples(self, examples: int) -> None:
        """The trainer calls this after a step."""
        with torch.no_grad():
            self.u_O.copy_(self._vectors()[0])

    def _vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(u_O, v_I), one iteration on."""
        v_I = F.normalize(self.weight.T @ self.u_O, dim=0)
        return F.normalize(self.weight @ v_I, dim=0), v_I

    def forward(self, vectors_BI: torch.Tensor) -> torch.Tensor:
        """(B, O)."""
        with torch.no_grad():
            u_O, v_I = self._vectors()
        return F.linear(vectors_BI, self.weight / (u_O @ self.weight @ v_I), self.bias)


class Critic(nn.Module):
    """D: how far a vector is from the real ones of its label."""

    def __init__(self, size: int, labels: int, hidden: int, kind: str):
        super().__init__()
        layer = SpectralLinear if kind == "spectral" else nn.Linear
        self.kind = kind
        self.labels = nn.Embedding(labels, hidden)
        self.first = layer(size, hidden)
        self.second = layer(hidden, hidden)
        self.last = layer(hidden, 1)

    def forward(self, labels_B: torch.Tensor, vectors_BP: torch.Tensor) -> torch.Tensor:
        """D_B as it is, without what its kind makes of it."""
        hidden_BH = F.leaky_relu(self.first(vectors_BP) + self.labels(labels_B), SLOPE)
        return self.last(F.leaky_relu(self.second(hidden_BH), SLOPE))[:, 0]

    def score(self, labels_B: torch.Tensor) -> Score:
        """D for vectors of these labels."""
        plain = partial(self, labels_B)
        if self.kind in ("normalised", "normalised_squared"):
            return partial(normalised_score, plain, self.kind == "normalised_squared")
        return plain


class Generator(nn.Module):
    """G: a vector of a label from normally distributed noise."""

    def __init__(self, noise: int, size: int, labels: int, hidden: int):
        super().__init__()
        self.noise = noise
        self.labels = nn.Embedding(labels, hidden)
        self.first = nn.Linear(noise, hidden)
        self.last = nn.Linear(hidden, size)

    def forward(self, labels_B: torch.Tensor, noise_BN: torch.Tensor) -> torch.Tensor:
        """(B, P)."""
        return self.last(F.leaky_relu(self.first(noise_BN) + self.labels(labels_B), SLOPE))


def single_loss(score: Score, real_BP: torch.Tensor, made_BP: torch.Tensor) -> torch.Tensor:
    """The loss of D and of what made the vectors: (B,)."""
    still_B = score(made_BP.detach())
    hinges_B = (1 + score(real_BP)).relu() + (1 - still_B).relu()
    return hinges_B + score(made_BP) - still_B


def gradient_penalty(
    score: Score, real_BP: torch.Tensor, made_BP: torch.Tensor, share_B: torch.Tensor
) -> torch.Tensor:
    """(||g|| - 1)^2 at a share of the way from made to real vectors: (B,)."""
    between_BP = torch.lerp(made_BP.detach(), real_BP.detach(), share_B[:, None])
    _, length_B = score_and_length(score, between_BP)
    return (length_B - 1).square()


def normalised_score(score: Score, squared: bool, vectors_BP: torch.Tensor) -> torch.Tensor:
    """D over the length of its gradient, in one of two forms: (B,)."""
    plain_B, length_B = score_and_length(score, vectors_BP)
    if squared:
        return plain_B * length_B / (length_B.square() + 1e-6)
    return plain_B / (length_B + plain_B.abs())


def score_and_length(score: Score, vectors_BP: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(D_B, ||g||_B), both with a gradient by the weights of D and by the vectors."""
    if not vectors_BP.requires_grad:
        vectors_BP = vectors_BP.detach().requires_grad_()
    with torch.enable_grad():
        plain_B = score(vectors_BP)
        (gradient_BP,) = torch.autograd.grad(plain_B.sum(), vectors_BP, create_graph=True)
    tiny = torch.finfo(gradient_BP.dtype).tiny  # the square root has a gradient at 0 then
    return plain_B, (gradient_BP.square().sum(1) + tiny).sqrt()


class Adversary(nn.Module):
    """Generator and critic of the vectors of labels.

    Args:
        size: numbers of a vector.
        labels: how many there are.
        noise: numbers of the noise.
        kind: one of `CRITICS`.
        penalty: of the kind `penalty`.
    """

    def __init__(self, size: int, labels: int, noise: int, kind: str, penalty: float):
        super().__init__()
        self.generator = Generator(noise, size, labels, HIDDEN)
        self.critic = Critic(size, labels, HIDDEN, kind)
        self.penalty = penalty if kind == "penalty" else 0.0

    def draw(self, real_BP: torch.Tensor) -> torch.Tensor:
        """Noise for as many vectors, and a share: (B, N + 1)."""
        rows = len(real_BP)
        noise_BN = torch.randn(rows, self.generator.noise, device=real_BP.device)
        return torch.cat([noise_BN, torch.rand(rows, 1, device=real_BP.device)], 1)

    def forward(
        self, real_BP: torch.Tensor, labels_B: torch.Tensor, drawn: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(made_BP, loss_B): vectors of the same labels, without a gradient, and the loss of both
        networks, which leaves alone what the real vectors come from.

        `drawn` is as `draw` gives it; None: drawn here. In the type of the weights, also under
        autocast.
        """
        real_BP = real_BP.detach()
        drawn = self.draw(real_BP) if drawn is None else drawn
        with torch.autocast(real_BP.device.type, enabled=False):
            drawn = drawn.to(real_BP.dtype)
            made_BP = self.generator(labels_B, drawn[:, :-1])
            score = self.critic.score(labels_B)
            loss_B = single_loss(score, real_BP, made_BP)
            if self.penalty:
                share_B = drawn[:, -1]
                loss_B = loss_B + self.penalty * gradient_penalty(score, real_BP, made_BP, share_B)
        return made_BP.detach(), loss_B
