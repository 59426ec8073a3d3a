"""Weights in few bits: how a matrix lies in a safetensors file in 8 or 4 bits a weight.

Each row is cut into blocks of 32 weights; a block has one scale, and a weight is a whole number:

    weight = code * scale      code in [-8, 8) or [-128, 128)

    NAME.q8      uint8 (R, C)       a byte is a code + 128
    NAME.q4      uint8 (R, C / 2)   byte j of a block's 16: code j + 8 in its low half, code j + 16,
                                    also + 8, in its high half
    NAME.scales  float16 (R, C / 32)

The header of the file says `nlpkit_bits`: "4", "8" or "4,8". Rows are a multiple of 32 long; other
matrices, vectors, and what is added to every token (positions, segments) stay as they are. The
product of a code and a half-precision scale fits into float32, so a file gives the same weights,
bit for bit, on every machine.

The scale of a block is searched: the largest weight is put on several codes, the scale that fits
the codes best is (weight . code) / (code . code), and the one with the least squared error is kept.
Over the matrices of `tiny` the root of the squared error is 8.3 % of the weights in 4 bits, where a
scale of |largest| / 7 has 9.9 %, and 0.51 % in 8 bits (a test holds these).
Legend: R rows, C columns, N blocks, K = 32 weights of a block, S blocks of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nlpkit.errors import SettingsError

KEY = "nlpkit_bits"
BLOCK = 32
BITS = (4, 8)
SCALES = ".scales"

_AT_ONCE = 1 << 12
"""Blocks that are packed at once, so that the search stays in the processor's cache."""
_LARGEST = 65504.0
_SMALLEST = 2.0**-25
"""Of half precision; what is smaller is rounded to 0."""
_ADDED = ("position", "token_type", "task_type")
_LARGEST_CODES = {4: [-8.4, -8.0, -7.6, -7.1, -6.6, 7.3, 6.8, 6.2], 8: [-128.0, -127.0, 127.0]}
"""Where the weight of a block with the largest magnitude is put by the search."""


@dataclass(frozen=True)
class Matrix:
    """A matrix in few bits, as the header of its file tells."""

    bits: int
    shape: tuple[int, int]

    def parts(self, name: str) -> tuple[str, str]:
        """The names under which the codes and the scales of the matrix `name` are stored."""
        return f"{name}.q{self.bits}", name + SCALES


def packs(name: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor is one to be stored in few bits."""
    if tensor.dim() != 2 or not tensor.is_floating_point():
        return False
    is_added = any(word in name for word in _ADDED)
    return not is_added and tensor.shape[1] % BLOCK == 0 and tensor.shape[1] > 0


def pack(weight_RC: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, scales) of a matrix, as they are stored. `C` is a multiple of 32.

    Raises SettingsError for weights that half precision cannot scale: beyond 65504, NaN.
    """
    rows = len(weight_RC)
    weight_NK = weight_RC.detach().float().reshape(-1, BLOCK)
    if not bool((weight_NK.abs() <= _LARGEST).all()):
        raise SettingsError(f"weights beyond {_LARGEST:.0f} do not go into {bits} bits")
    found = [_best(part_NK, bits) for part_NK in weight_NK.split(_AT_ONCE)]
    code_NK = torch.cat([code for code, _ in found]).to(torch.int16) + 2 ** (bits - 1)
    scale_N = torch.cat([scale for _, scale in found])
    packed_NK = code_NK.to(torch.uint8)
    if bits == 4:
        packed_NK = packed_NK[:, : BLOCK // 2] | (packed_NK[:, BLOCK // 2 :] << 4)
    return packed_NK.reshape(rows, -1), scale_N.half().reshape(rows, -1)


def unpack(packed: torch.Tensor, scale_RS: torch.Tensor, bits: int) -> torch.Tensor:
    """weight_RC in float32, of what `pack` gives; exact."""
    if bits == 4:
        byte_RSJ = packed.unflatten(1, (-1, BLOCK // 2))
        packed = torch.cat([byte_RSJ & 15, byte_RSJ >> 4], 2).flatten(1)
    weight_RSK = packed.float().sub_(2 ** (bits - 1)).unflatten(1, (-1, BLOCK))
    return weight_RSK.mul_(scale_RS.float()[:, :, None]).flatten(1)


def _best(weight_NK: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(code_NK, scale_N) in float32, of the scales tried those with the least squared error.

    The best scale of given codes leaves the error w.w - (w.c)^2 / c.c, so that the largest of the
    second term is looked for.
    """
    place_N1 = weight_NK.abs().argmax(1, keepdim=True)
    extreme_N1 = weight_NK.gather(1, place_N1)
    best_scale_N1 = torch.zeros_like(extreme_N1)
    most_N1 = torch.zeros_like(extreme_N1)
    for largest in _LARGEST_CODES[bits]:
        code_NK = _codes(weight_NK, extreme_N1 / largest, bits)
        length_N1 = code_NK.square().sum(1, keepdim=True).clamp_(min=1)
        product_N1 = code_NK.mul_(weight_NK).sum(1, keepdim=True)
        scale_N1 = product_N1 / length_N1
        explained_N1 = product_N1 * scale_N1
        is_better_N1 = explained_N1 > most_N1
        most_N1 = torch.where(is_better_N1, explained_N1, most_N1)
        best_scale_N1 = torch.where(is_better_N1, scale_N1, best_scale_N1)
    best_scale_N1 = best_scale_N1.half().float()
    return _codes(weight_NK, best_scale_N1, bits), best_scale_N1[:, 0]


def _codes(weight_NK: torch.Tensor, scale_N1: torch.Tensor, bits: int) -> torch.Tensor:
    """The nearest codes, as whole numbers in float32; 0 where half precision has no such scale."""
    largest = 2 ** (bits - 1)
    inverse_N1 = torch.where(scale_N1.abs() < _SMALLEST, 0.0, 1 / scale_N1)
    return (weight_NK * inverse_N1).round_().clamp_(-largest, largest - 1)


def pack_all(
    tensors: Mapping[str, torch.Tensor], bits: int
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(tensors to store, what to add to the header) with the matrices in `bits` bits. Raises
    SettingsError that names a tensor whose weights are too large for it."""
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if not packs(name, tensor):
            stored[name] = tensor
            continue
        codes_name, scales_name = Matrix(bits, (0, 0)).parts(name)
        try:
            stored[codes_name], stored[scales_name] = pack(tensor, bits)
        except SettingsError as error:
            raise SettingsError(f"{name}: {error.message}") from None
    return stored, {KEY: str(bits)} if len(stored) > len(tensors) else {}


def matrices(
    where: Any,
    stored: Mapping[str, tuple[tuple[int, ...], str]],
    metadata: Mapping[str, str] | None,
) -> dict[str, Matrix]:
    """Name -> matrix, for those of a file that lie there in few bits.

    `stored` has shape and type (U8, F16) of every tensor under the name that it has in the file.
    Raises SettingsError, with the file `where` and the tensor, where the parts do not fit.
    """
    told = (metadata or {}).get(KEY, "")
    found: dict[str, Matrix] = {}
    for codes_name, (shape, dtype) in stored.items():
        name, _, suffix = codes_name.rpartition(".q")
        is_packed = name and suffix in ("4", "8") and (told or dtype == "U8")
        if not is_packed:
            continue
        if name in found or name in stored:
            raise SettingsError(f"{where}: {name}: is stored twice")
        bits = int(suffix)
        scales = stored.get(name + SCALES)
        found[name] = Matrix(bits, _checked(f"{where}: {name}", bits, (shape, dtype), scales))
    for scales_name in stored:
        name = scales_name.removesuffix(SCALES)
        if told and name != scales_name and name not in found:
            raise SettingsError(f"{where}: {name}: scales without codes")
    has = ",".join(sorted({str(matrix.bits) for matrix in found.values()}))
    if has != told:
        raise SettingsError(f'{where}: the header says {KEY} "{told}", the tensors have "{has}"')
    return found


def _checked(
    where: str,
    bits: int,
    codes: tuple[tuple[int, ...], str],
    scales: tuple[tuple[int, ...], str] | None,
) -> tuple[int, int]:
    """(rows, columns) of a matrix from shape and type of its parts."""
    shape, dtype = codes
    if dtype != "U8" or len(shape) != 2:
        raise SettingsError(f"{where}: codes: expected a matrix of U8, got {dtype} {list(shape)}")
    columns = shape[1] * 8 // bits
    if columns % BLOCK:
        raise SettingsError(f"{where}: expected rows of a multiple of {BLOCK}, got {columns}")
    expected = ((shape[0], columns // BLOCK), "F16")
    if scales is None:
        raise SettingsError(f"{where}: its {SCALES[1:]} are missing")
    if scales != expected:
        wanted, got = (f"{kind} {list(size)}" for size, kind in (expected, scales))
        raise SettingsError(f"{where}: scales: expected {wanted}, got {got}")
    return shape[0], columns
