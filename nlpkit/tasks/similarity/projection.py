r"""Fewer numbers for each vector of an index: a random projection that keeps cosines, more or less.

    y = A x,    A of n rows with entries +-1 / sqrt(n), half of them each

For N vectors of length 1 and an error e up to 3/4, n > 24 log(N) / e^2 rows keep all products
<x, x'> to within e, with a probability of at least 1 - 2 / N (Johnson and Lindenstrauss). That is
much: 10,000 vectors and e = 1/2 ask for 885 numbers. What is to be expected is far less: after the
projection vectors are made length 1 again, and then a cosine c has an error with a standard
deviation of about (1 - c^2) / sqrt(n), for 128 numbers 0.09 at c = 0 and 0.03 at c = 0.8.

The signs are bits of SHAKE-256, so that A is the same everywhere and need not be kept.

Source: https://kexue.fm/archives/8679 and /8706 (there entries are normal; that signs do as well:
Achlioptas 2003, "Database-friendly random projections").
Differs from it: the lengths of 1.
Legend: R rows, H size of a vector, N size after the projection.
"""

from __future__ import annotations

import functools
import hashlib
import math

import numpy as np
import torch


@functools.lru_cache(maxsize=4)
def matrix(size: int, numbers: int) -> torch.Tensor:
    """The transpose of A: (H, N), float32."""
    count = size * numbers
    drawn = hashlib.shake_256(b"nlpkit similarity.project").digest(-(-count // 8))
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8))[:count]
    signs_HN = torch.from_numpy(bits.reshape(size, numbers).astype(np.float32)) * 2 - 1
    return signs_HN / math.sqrt(numbers)


def project(vectors_RH: torch.Tensor, numbers: int) -> torch.Tensor:
    """Vectors of length 1 with so many numbers, (R, N) float32 on the CPU; with 0 as they are.

    Row by row, so that a vector's digits do not depend on what stands beside it.
    """
    vectors_RH = vectors_RH.float().cpu()
    if numbers == 0:
        return vectors_RH
    matrix_HN = matrix(vectors_RH.shape[1], numbers)
    rows = [(vector_H[:, None] * matrix_HN).sum(0) for vector_H in vectors_RH]
    empty_RN = vectors_RH.new_empty(0, numbers)
    projected_RN = torch.stack(rows) if rows else empty_RN
    return torch.nn.functional.normalize(projected_RN, dim=1)
