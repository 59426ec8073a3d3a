"""Products of matrices whose rows depend neither on how many they are nor on padding.

The matrix libraries of a CPU take other kernels for other shapes, and their sums come out otherwise
in the last bits (fp32, MKL: up to 1e-6 of logits of size 1). Then a text alone in its batch has
other scores than among others. Three things were found to matter, and in prediction they are kept
from happening:

- Up to three rows take another kernel than more, also where they are left over when threads share
  few rows. Rows are filled up to a multiple of FEW.
- A single column is a product with a vector, whose sums depend on how many rows there are. It gets
  a second one.
- A sum of more than 192 terms is cut into equal parts, and where the cuts fall depends on its
  length, so on padding. `weighted_sums` makes the cuts itself, at multiples of BLOCK.

Zeros at the end of a sum change nothing then, if the widths of batches are those of
`nlpkit.text.tokenizer.padded_length`.

Legend: N rows, all leading dimensions together; H features; X any leading dimensions; Q rows of
weights; K terms of a sum; D numbers of a value.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

FEW = 4
"""Of multiples of it, the rows of a product were equal for all numbers tried (up to 2048 rows, 1 to
16 threads)."""

MANY = 256
"""From so many rows on they were equal whatever their number: 16 threads need 32."""

BLOCK = 128
"""Terms that a library adds up at once: below the 192 from which it cuts, and a multiple of 16."""


def spare(rows: int) -> int:
    """Rows to be added, so that what is in the others does not depend on how many they are."""
    return 0 if rows >= MANY else -rows % FEW


def steady(model: nn.Module) -> None:
    """Makes every linear layer of a model a `SteadyLinear`, every recurrence a `SteadyLSTM` or a
    `SteadyGRU`. Weights and their names stay."""
    kinds = {nn.Linear: SteadyLinear, nn.LSTM: SteadyLSTM, nn.GRU: SteadyGRU}
    for module in model.modules():
        kind = kinds.get(type(module))
        if kind is not None:
            module.__class__ = kind


class SteadyLinear(nn.Linear):
    """`nn.Linear`; in evaluation mode few rows are multiplied as a multiple of four."""

    def forward(self, input_NH: torch.Tensor) -> torch.Tensor:
        """As `nn.Linear`: (..., H) to (..., `out_features`)."""
        if self.training:
            return super().forward(input_NH)
        return steady_linear(input_NH, self.weight, self.bias)


class SteadyStates:
    """A recurrence over whole texts whose last state nobody asks for. In evaluation
    mode it computes in the type of its weights, since a CPU sums a single row otherwise than two in
    bfloat16, and with `spare` rows."""

    def forward(self, input_BTH: torch.Tensor, *more: Any) -> Any:
        """As that of the recurrence: (B, T, H) to (B, T, states), in the type of the input."""
        plain: Any = super().forward  # type: ignore[misc]
        own = self.weight_hh_l0.dtype  # type: ignore[attr-defined]
        is_training = self.training  # type: ignore[attr-defined]
        if is_training or input_BTH.device.type != "cpu" or is_traced() or more:
            return plain(input_BTH, *more)
        side = 0 if self.batch_first else 1  # type: ignore[attr-defined]
        rows = input_BTH.shape[side]
        added = (0, 0, 0, 0, 0, spare(rows)) if side == 0 else (0, 0, 0, spare(rows))
        filled_BTH = nn.functional.pad(input_BTH.to(own), added)
        with torch.autocast("cpu", enabled=False):
            states_BTS, _ = plain(filled_BTH)
        return states_BTS.narrow(side, 0, rows).to(input_BTH.dtype), None


class SteadyLSTM(SteadyStates, nn.LSTM):  # type: ignore[misc]
    """`nn.LSTM`; see `SteadyStates`."""


class SteadyGRU(SteadyStates, nn.GRU):  # type: ignore[misc]
    """`nn.GRU`; see `SteadyStates`."""


def steady_linear(
    input_NH: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`torch.nn.functional.linear` of `spare` rows more and of two outputs: (..., H) to (..., O).

    What is added is zero and taken off again. `weight` is (O, H), `bias` (O,).
    """
    shape = input_NH.shape[:-1]
    rows = math.prod(shape)
    if input_NH.device.type != "cpu" or is_traced() or rows == 0:
        return nn.functional.linear(input_NH, weight, bias)
    outputs = len(weight)
    if outputs == 1:
        weight = nn.functional.pad(weight, (0, 0, 0, 1))
        bias = None if bias is None else nn.functional.pad(bias, (0, 1))
    if not spare(rows):
        return nn.functional.linear(input_NH, weight, bias)[..., :outputs]
    flat_NH = input_NH.reshape(rows, -1)
    filled_NH = torch.cat([flat_NH, flat_NH.new_zeros(spare(rows), flat_NH.shape[1])])
    output_NO = nn.functional.linear(filled_NH, weight, bias)[:rows, :outputs]
    return output_NO.unflatten(0, shape)


def weighted_sums(
    weight_XQK: torch.Tensor, value_XKD: torch.Tensor, start: int = 0
) -> torch.Tensor:
    """weight @ value: (X, Q, D). The weights of padding are 0.

    `start` is a place among the K at which blocks begin anew: what is before it and what is behind
    it are padded apart. Elsewhere than on a CPU, while a model is traced or compiled, and for sums
    that fit a block anyway it is the plain product.
    """
    rows = weight_XQK.shape[-2]
    terms = weight_XQK.shape[-1]
    if weight_XQK.device.type != "cpu" or is_traced():
        return weight_XQK @ value_XKD
    if spare(rows):
        weight_XQK = nn.functional.pad(weight_XQK, (0, 0, 0, spare(rows)))
    sums_XQD = None
    for first, end in _blocks(terms, start):
        part_XQD = weight_XQK[..., first:end] @ value_XKD[..., first:end, :]
        sums_XQD = part_XQD if sums_XQD is None else sums_XQD + part_XQD
    assert sums_XQD is not None  # there is a term
    return sums_XQD[..., :rows, :]


def is_traced() -> bool:
    """Whether a model is recorded at this moment, for which shapes of now must not count."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def _blocks(terms: int, start: int) -> list[tuple[int, int]]:
    """The half-open parts of `range(terms)`, cut at `start` and at every BLOCK from 0 and from
    there."""
    firsts = [*range(0, start, BLOCK), *range(start, terms, BLOCK)]
    return list(zip(firsts, [*firsts[1:], terms], strict=True))
