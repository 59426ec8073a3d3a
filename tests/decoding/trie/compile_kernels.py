"""Compiles the kernels for an H100, which needs none. Tests run them in the interpreter, so this is
its own program."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from nlpkit.decoding.trie import kernels

TYPES = {"first_child": "*i32", "eos": "i32", "beams": "i32", "count": "i32"}
TYPES |= dict.fromkeys(["score_N", "top_NP", "sum_NP", "score_BC"], "*fp32")
TYPES |= dict.fromkeys(["state_N", "key_NST", "beam_BC", "token_BC", "state_BC"], "*i64")


def compiled(kernel, label, logits, **constants):
    types = {**TYPES, "label": label, "logits_NV": logits} | dict.fromkeys(constants, "constexpr")
    signature = {name: types[name] for name in kernel.arg_names}
    source = ASTSource(
        kernel,
        signature,
        {(kernel.arg_names.index(name),): value for name, value in constants.items()},
    )
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


blocks = {"STRIDE": 21128, "V": 21128, "S": 2, "T": 4, "BLOCK": 128, "FEW": 16, "PIECE": 4096}
compiled(kernels._look, "*i16", "*bf16", P=6, **blocks)
compiled(kernels._look, "*i32", "*fp32", P=0, **blocks)
compiled(kernels._merge, "*i16", "*fp32", L=8, P=6, POWER_P=8, T=4, TILE_K=8)
