"""The fused backend against the reference and the fixed one: in Triton's interpreter or, where there is
one, on a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_trie import (
    EOS,
    HAS_GPU,
    NOWHERE,
    REAL_KERNELS,
    SIZE,
    key_lists,
    needs_triton,
    of_numpy,
    states_of,
    step,
    tables,
    walk,
)

from nlpkit.decoding.trie import backend
from nlpkit.decoding.trie.table import TrieTable
from nlpkit.decoding.trie.token_trie import TokenTrie
from nlpkit.errors import SettingsError

pytestmark = of_numpy


def assert_equal(found, wanted):
    torch.testing.assert_close(found.score_BC, wanted.score_BC, rtol=1e-5, atol=1e-5)
    for part in ("beam_BC", "token_BC", "state_BC"):
        assert torch.equal(getattr(found, part), getattr(wanted, part)), part


@needs_triton
@settings(max_examples=12)
@given(
    st.lists(key_lists(SIZE), min_size=1, max_size=3),
    st.sampled_from(["full", "renorm"]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(0, 10**6),
)
def test_steps_find_the_best_legal_continuations(cases, norm, dtype, beams, count, seed):
    walk(cases, "fused", norm, beams, count, seed, dtype)


@needs_triton
@pytest.mark.parametrize(("norm", "most", "programs"), [("full", 128, 1024), ("renorm", 12, 4)])
def test_wide_nodes_large_vocabularies_and_many_candidates(norm, most, programs, monkeypatch):
    """With the blocks of a GPU, of which nodes, shares and vocabulary fill several, and tokens of
    32 bits."""
    for name, value in {**REAL_KERNELS, "PROGRAMS": programs}.items():
        monkeypatch.setattr(backend.kernels(), name, value)
    size = 40_000
    keys = (
        [(7 * i,) for i in range(1, 700)]
        + [(7, i) for i in range(2, 1200)]
        + [(14, 2), (21,), (21, 3)]
    )
    (fused,), (fixed,) = tables([keys], "fused", size), tables([keys], "fixed", size)
    for prefixes, count in (([()], most), ([(7,), (14,), None, (21,)], 8)):
        state_BK, score_BK = states_of(fixed, [prefixes]), torch.randn(1, len(prefixes))
        logits_BKV = torch.randn(1, len(prefixes), size) + torch.linspace(
            0, 100, size
        )  # later blocks have larger ones
        given = logits_BKV, score_BK, state_BK, count, norm
        assert_equal(step(fused, *given), step(fixed, *given))


@needs_triton
@pytest.mark.parametrize("norm", ["full", "renorm"])
def test_banned_tokens_may_fill_blocks(norm):
    keys = [(token,) for token in range(2, 30)] + [(2, token) for token in range(2, 30)]
    (fused,), (fixed,) = tables([keys], "fused", 30), tables([keys], "fixed", 30)
    for states, legal in (([0], [5, 27]), ([0], [9, 20]), ([1, -1], [2, 3])):
        logits_BKV = torch.full((1, len(states), 30), NOWHERE)
        logits_BKV[..., legal] = torch.tensor([2.0, 0.5])
        given = logits_BKV, torch.zeros(1, len(states)), torch.tensor([states]), 4, norm
        found = step(fused, *given)
        assert found.token_BC.tolist() == [[*legal, -1, -1]]
        assert_equal(found, step(fixed, *given))


@needs_triton
def test_equal_scores_come_by_beam_then_by_token_the_end_last():
    keys = [
        (2,),
        *((2, token) for token in range(3, 9)),
        (5,),
        *((5, token) for token in range(2, 8)),
    ]
    (fused,), (on_host,) = tables([keys], "fused"), tables([keys])
    state_BK = states_of(on_host, [[(5,), None, (2,)]])
    found = step(fused, torch.zeros(1, 3, SIZE), torch.zeros(1, 3), state_BK, 16)
    first = [(0, token) for token in (*range(2, 8), EOS)]
    second = [(2, token) for token in (*range(3, 9), EOS)]
    assert list(zip(found.beam_BC[0].tolist(), found.token_BC[0].tolist(), strict=True)) == [
        *first,
        *second,
        *[(0, -1)] * 2,
    ]


@needs_triton
def test_logits_may_lie_in_any_order():
    keys = [(2,), (3,), (4,), (2, 3)]
    (fused,), (fixed,) = tables([keys], "fused"), tables([keys], "fixed")
    logits_BKV, score_BK, state_BK = torch.randn(2, 1, SIZE + 3), torch.zeros(2, 1), fixed.start(2)
    wanted = step(fixed, logits_BKV[..., :SIZE].contiguous(), score_BK, state_BK, 3)
    turned = logits_BKV[..., :SIZE].permute(2, 0, 1).contiguous().permute(1, 2, 0)
    for logits in (logits_BKV[..., :SIZE], turned):
        assert not logits.is_contiguous()
        assert_equal(step(fused, logits, score_BK, state_BK, 3), wanted)


@needs_triton
def test_more_candidates_than_the_kernels_give_are_found_by_the_fixed_backend():
    keys = [(2,), (3, 4)]
    (fused,), (fixed,) = tables([keys], "fused"), tables([keys], "fixed")
    given = (
        torch.randn(2, 1, SIZE),
        torch.zeros(2, 1),
        fixed.start(2),
        backend.kernels().MOST_COUNT + 1,
    )
    assert_equal(step(fused, *given), step(fixed, *given))


def test_a_backend_that_the_device_lacks_is_refused(monkeypatch):
    trie = TokenTrie.from_sequences([(2,)], SIZE)
    monkeypatch.setattr(backend, "kernels", lambda: None)
    with pytest.raises(SettingsError, match="fused steps need CUDA and Triton"):
        TrieTable.of(trie, EOS, backend="fused")
    assert TrieTable.of(trie, EOS).backend == "ragged"
    assert TrieTable.of(trie, EOS, "meta").backend == "fixed"
    assert backend.choose_backend(torch.device("cuda"), None) == "fixed"


def test_a_missing_triton_is_no_error_and_anything_else_is(monkeypatch):
    load = backend.kernels.__wrapped__
    monkeypatch.delitem(sys.modules, "nlpkit.decoding.trie.kernels", raising=False)
    monkeypatch.delattr("nlpkit.decoding.trie.kernels", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert load() is None
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="torch"):
        load()


@needs_triton
@pytest.mark.skipif(HAS_GPU, reason="they run on the GPU")
def test_the_kernels_compile_for_a_gpu(tmp_path):
    """The interpreter takes more than the compiler, which needs no GPU."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compile_kernels.py")
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, script], env=environment, check=True, timeout=120)
