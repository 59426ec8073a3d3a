"""Values with their places as numbers that sort, for the Triton kernels.

A key is a 64-bit number that sorts by value, and where values are equal by place, the lower one
first:

    bits 63..32  the bits of the float32, the lower 31 flipped where it is negative      31..0  2**31 - 1 - place

So equal scores come in the order of their beams, equal logits of a beam in that of their tokens, an
end last.

Legend: T kept of some, X any shape.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import topk  # Triton has it from 3.4 on, which torch brings from 2.8 on

PLACES = tl.constexpr(0x7FFFFFFF)
NOTHING = tl.constexpr((0x807FFFFF - (1 << 32)) << 32)  # the key of -inf at the last place


@triton.jit
def best_of_both(one_T, other_T):
    """The larger half of the keys of both."""
    return topk(tl.reshape(tl.join(one_T, other_T), [2 * one_T.shape[0]]), one_T.shape[0])


@triton.jit
def key_of(value_X, place_X):
    bits_X = value_X.to(tl.int32, bitcast=True)
    ordered_X = bits_X ^ ((bits_X >> 31) & PLACES)
    return (ordered_X.to(tl.int64) << 32) | (place_X ^ PLACES).to(tl.int64)


@triton.jit
def value_of(key_X):
    ordered_X = (key_X >> 32).to(tl.int32)
    return (ordered_X ^ ((ordered_X >> 31) & PLACES)).to(tl.float32, bitcast=True)


@triton.jit
def place_of(key_X):
    return (key_X & PLACES).to(tl.int32) ^ PLACES
