r"""The LSTM with ordered neurons, whose cells are overwritten in the order of a hierarchy.

Two master gates of n / q numbers each rise from 0 to 1 along the cells, and say for every level of
the hierarchy whether it is kept (f~) and whether it is written (i~); q cells share a level.

    f~ = cumsum(softmax(W_f~ x + U_f~ h)),      i~ = 1 - cumsum(softmax(W_i~ x + U_i~ h))
    w  = f~ * i~
    c' = w * (f * c + i * new) + (f~ - w) * c + (i~ - w) * new
       = f~ (1 - i~ (1 - f)) * c + i~ (1 - f~ (1 - i)) * new
    h' = o * tanh(c')

with the gates f, i, o and the new cells of an LSTM; every W x has a bias. The level of a token is
1 - mean(f~): the share of the levels that it forgets. It is high where a large part begins.

W x is one product for all steps, so that a step has one product, U h. A training keeps the gates of
all steps and has its gradient by hand: then a step backwards has one product too, and the gradient
of U is one for all steps, where autograd adds up as many as there are steps.

Source: Shen et al. 2019, https://arxiv.org/abs/1810.09536, equations 6 to 14;
https://kexue.fm/archives/6621. Differs from the post: i~ is 1 - cumsum, as in the paper, and not a
sum from the right, which counts one more softmax weight at each place. Differs from the paper's
equation 15 of the level, which lacks the 1 -.
Legend: T steps, B rows, H hidden, K levels, q = H / K, G = 4 H + 2 K: gates, in the order
f~, i~ (K each), f, i, o, new (H each).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from nlpkit.layers.second_gradient import again


class OrderedNeurons(nn.Module):
    """One layer, from left to right, from cells and states of 0.

    `chunk` is q, cells that share a level; it divides `size`, the H of the states.
    """

    def __init__(self, input_size: int, size: int, chunk: int):
        super().__init__()
        if size % chunk:
            raise ValueError(f"chunk: expected a divisor of {size}, got {chunk}")
        self.chunk = chunk
        gates = 4 * size + 2 * (size // chunk)
        bound = size**-0.5
        self.input_weight = nn.Parameter(torch.empty(gates, input_size).uniform_(-bound, bound))
        self.weight = nn.Parameter(torch.empty(gates, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(gates))

    def forward(self, inputs_TBG: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(hidden_TBH, level_TB) of `inputs_TBG`, the W x + b of all steps in float32; no gradient
        goes through the levels."""
        if torch.is_grad_enabled():
            return _OrderedNeurons.apply(inputs_TBG, self.weight, self.chunk)
        return run(inputs_TBG, self.weight, self.chunk)


def _step(
    gates_BG: torch.Tensor, cell_BKq: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(hidden_BKq, cell_BKq, opened_B4Kq, master_B2K) of a step: the new states and cells, the
    gates f, i, o and new cells, and f~ and 1 - i~.

    `gates_BG` is W x + b + U h.
    """
    batch, levels, chunk = cell_BKq.shape
    chosen_B2K = gates_BG[:, : 2 * levels].reshape(batch, 2, levels)
    master_B2K = chosen_B2K.softmax(-1).cumsum(-1)
    parts_B4Kq = gates_BG[:, 2 * levels :].reshape(batch, 4, levels, chunk)
    opened_B4Kq = torch.cat([parts_B4Kq[:, :3].sigmoid(), parts_B4Kq[:, 3:].tanh()], 1)
    keep_BK1 = master_B2K[:, 0, :, None]
    write_BK1 = 1 - master_B2K[:, 1, :, None]
    kept = keep_BK1 * (1 - write_BK1 * (1 - opened_B4Kq[:, 0]))
    written = write_BK1 * (1 - keep_BK1 * (1 - opened_B4Kq[:, 1]))
    cell_BKq = kept * cell_BKq + written * opened_B4Kq[:, 3]
    return opened_B4Kq[:, 2] * cell_BKq.tanh(), cell_BKq, opened_B4Kq, master_B2K


_scripted_step = torch.jit.script(_step)


@torch.jit.script
def run(
    inputs_TBG: torch.Tensor, weight_GH: torch.Tensor, chunk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(hidden_TBH, level_TB) of the whole recurrence. A script, so that a traced model has a loop
    over the steps there are, and not those of its example."""
    batch = inputs_TBG.size(1)
    size = weight_GH.size(1)
    cell_BKq = torch.zeros(
        [batch, size // chunk, chunk], dtype=inputs_TBG.dtype, device=inputs_TBG.device
    )
    hidden_BH = torch.zeros([batch, size], dtype=inputs_TBG.dtype, device=inputs_TBG.device)
    weight_HG = weight_GH.t()
    states: list[torch.Tensor] = []
    levels: list[torch.Tensor] = []
    for step in range(inputs_TBG.size(0)):
        gates_BG = torch.addmm(inputs_TBG[step], hidden_BH, weight_HG)
        hidden_BKq, cell_BKq, _, master_B2K = _scripted_step(gates_BG, cell_BKq)
        hidden_BH = hidden_BKq.reshape(batch, size)
        states.append(hidden_BH)
        levels.append(1 - master_B2K[:, 0].mean(-1))
    return torch.stack(states), torch.stack(levels)


def _hidden(inputs_TBG: torch.Tensor, weight_GH: torch.Tensor, chunk: int) -> torch.Tensor:
    """hidden_TBH of `run`, of operations that autograd can differentiate as often as it likes."""
    batch = inputs_TBG.shape[1]
    size = weight_GH.shape[1]
    hidden_BH = inputs_TBG.new_zeros(batch, size)
    cell_BKq = inputs_TBG.new_zeros(batch, size // chunk, chunk)
    states = []
    for inputs_BG in inputs_TBG:
        gates_BG = inputs_BG + hidden_BH @ weight_GH.t()
        hidden_BKq, cell_BKq, _, _ = _step(gates_BG, cell_BKq)
        hidden_BH = hidden_BKq.flatten(1)
        states.append(hidden_BH)
    return torch.stack(states)


class _OrderedNeurons(torch.autograd.Function):
    """The recurrence with its gradient by hand.

    With dh and dc the gradient by a step's states and cells, from the loss and from the step after
    it, k and w the two factors of c' = k * c + w * new in the module docstring:

        do = dh tanh(c'),     dc += dh o (1 - tanh(c')^2)
        dk = dc c,            dw = dc new,        dnew = dc w,       dc of the step before: dc k
        df = dk f~ i~,        di = dw f~ i~
        df~ = sum over q of  dk (1 - i~ (1 - f)) - dw i~ (1 - i)
        di~ = sum over q of  dw (1 - f~ (1 - i)) - dk f~ (1 - f)

    A master gate is a cumulated softmax p: dp is the sum of its gradients from the right, and the
    gradient by the logits is p (dp - sum(p dp)). A gradient that is to be differentiated again is
    autograd's own.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs_TBG: torch.Tensor, weight_GH: torch.Tensor, chunk: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        steps, batch, _ = inputs_TBG.shape
        size = weight_GH.shape[1]
        levels = size // chunk
        # Of every step, and of the zeros before the first.
        hidden = inputs_TBG.new_zeros(steps + 1, batch, levels, chunk)
        cells = inputs_TBG.new_zeros(steps + 1, batch, levels, chunk)
        opened = inputs_TBG.new_empty(steps, batch, 4, levels, chunk)
        masters = inputs_TBG.new_empty(steps, batch, 2, levels)
        weight_HG = weight_GH.t()
        for step in range(steps):
            before_BH = hidden[step].view(batch, size)
            gates_BG = torch.addmm(inputs_TBG[step], before_BH, weight_HG)
            found = _step(gates_BG, cells[step])
            hidden[step + 1], cells[step + 1], opened[step], masters[step] = found
        ctx.save_for_backward(inputs_TBG, weight_GH, hidden, cells, opened, masters)
        ctx.chunk = chunk
        level_TB = 1 - masters[:, :, 0].mean(-1)
        ctx.mark_non_differentiable(level_TB)
        return hidden[1:].reshape(steps, batch, size), level_TB

    @staticmethod
    def backward(ctx: Any, grad_TBH: Any, _: Any) -> Any:
        inputs_TBG, weight_GH, hidden, cells, opened, masters = ctx.saved_tensors
        if torch.is_grad_enabled():
            formula = partial(_hidden, chunk=ctx.chunk)
            return *again(formula, [inputs_TBG, weight_GH], grad_TBH), None
        steps, batch, _, levels, chunk = opened.shape
        size = levels * chunk
        slopes = _slopes(cells, opened, masters)
        grad_TBG = grad_TBH.new_empty(steps, batch, len(weight_GH))
        grad_cell = torch.zeros_like(cells[0])
        grad_hidden = torch.zeros_like(cells[0])
        for step in reversed(range(steps)):
            grad_hidden = grad_hidden + grad_TBH[step].view(batch, levels, chunk)
            by_out, by_cell, keep, by_gates, by_masters = (part[step] for part in slopes)
            grad_cell = torch.addcmul(grad_cell, grad_hidden, by_cell)
            grads_BG = grad_TBG[step]
            grad_gates = grads_BG[:, 2 * levels :].view(batch, 4, levels, chunk)
            torch.mul(by_gates, grad_cell[:, None], out=grad_gates)
            torch.mul(by_out, grad_hidden, out=grad_gates[:, 2])
            by_level = (by_masters * grad_cell[:, None]).sum(-1)
            grads_BG[:, : 2 * levels] = by_level.view(batch, 2 * levels)
            _through_softmax(grads_BG[:, : 2 * levels].view(batch, 2, levels), masters[step])
            grad_cell = grad_cell * keep
            grad_hidden = (grads_BG @ weight_GH).view(batch, levels, chunk)
        before = hidden[:-1].reshape(-1, size)
        return grad_TBG, grad_TBG.view(-1, len(weight_GH)).t() @ before, None


def _slopes(
    cells: torch.Tensor, opened: torch.Tensor, masters: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """What the gradients of all steps are multiplied with (see `_OrderedNeurons`).

    (by_out_TBKq, by_cell_TBKq, keep_TBKq, by_gates_TB4Kq, by_masters_TB2Kq): do = by_out dh before
    the sigmoid, dc += by_cell dh, dc before = keep dc; by_gates dc is the gradient before the
    sigmoids of f, i and the tanh of new, and by_masters dc that by f~ and by 1 - i~, to be summed
    over q.
    """
    before = cells[:-1]
    bent = cells[1:].tanh()
    forget, write_gate, out, new = opened.unbind(2)
    keep = masters[:, :, 0, :, None]
    write = 1 - masters[:, :, 1, :, None]
    forgotten = 1 - forget
    unwritten = 1 - write_gate
    both = keep * write
    kept = 1 - write * forgotten
    written = 1 - keep * unwritten
    by_forget = before * both * forget * forgotten
    by_write = new * both * write_gate * unwritten
    by_new = write * written * (1 - new * new)
    by_gates = torch.stack([by_forget, by_write, torch.zeros_like(new), by_new], 2)
    by_keep = before * kept - new * write * unwritten
    by_skip = before * keep * forgotten - new * written  # by 1 - i~: the sign turns
    return (
        bent * out * (1 - out),
        out * (1 - bent * bent),
        keep * kept,
        by_gates,
        torch.stack([by_keep, by_skip], 2),
    )


def _through_softmax(grad_B2K: torch.Tensor, master_B2K: torch.Tensor) -> None:
    """Turns the gradient by a cumulated softmax into that by its logits, in place."""
    weight_B2K = master_B2K.diff(dim=-1, prepend=torch.zeros_like(master_B2K[..., :1]))
    total_B21 = grad_B2K.sum(-1, keepdim=True)
    from_right_B2K = total_B21 - grad_B2K.cumsum(-1) + grad_B2K
    weighted_B2K = weight_B2K * from_right_B2K
    grad_B2K.copy_(weighted_B2K - weight_B2K * weighted_B2K.sum(-1, keepdim=True))
