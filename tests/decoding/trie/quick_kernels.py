"""Where there is no GPU, the kernels run in Triton's interpreter (see tests/conftest.py): here it
is quickened."""

from importlib import import_module

import numpy as np

from nlpkit.decoding.trie.backend import kernels

BLOCKS = {"BLOCK": 8, "FEW": 4, "PIECE": 8, "PROGRAMS": 16, "TILE": 16}


def quicken():
    """Small blocks, so that small tries fill several, and NumPy for `topk`, which takes a tenth of
    a second otherwise.

    Returns what was there before.
    """
    module = kernels()
    if module is None or not module.INTERPRETED:
        return {}
    quick = {**BLOCKS, "topk": sorted_by_numpy}
    before = {name: getattr(module, name) for name in quick}
    vars(module).update(quick)
    vars(import_module("nlpkit.decoding.trie.kernel_keys"))["topk"] = sorted_by_numpy
    return before


def sorted_by_numpy(keys, count):
    """`triton.language.topk` of the interpreter's tensors."""
    from triton import language
    from triton.runtime.interpreter import TensorHandle

    best = np.sort(keys.handle.data)[::-1][: int(count)].copy()
    return language.core.tensor(
        TensorHandle(best, keys.dtype), language.block_type(keys.dtype, [len(best)])
    )
