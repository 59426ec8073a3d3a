"""The table against a trie of plain tuples in float64, and its corners by hand, in both layouts of
a step."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_trie import (
    EOS,
    LAYOUTS,
    NOWHERE,
    SIZE,
    check,
    continuations,
    expected,
    key_lists,
    states_of,
    tables,
    walk,
)

from nlpkit.decoding.trie.continuations import log_totals
from nlpkit.decoding.trie.table import TrieTable, concat
from nlpkit.decoding.trie.token_trie import TokenTrie
from nlpkit.errors import SettingsError


@settings(max_examples=300)
@given(
    st.lists(key_lists(SIZE), min_size=1, max_size=3),
    st.sampled_from(["ragged", "fixed"]),
    st.sampled_from(["full", "renorm"]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(0, 10**6),
)
def test_steps_find_the_best_legal_continuations(cases, layout, norm, dtype, beams, count, seed):
    """A search through one trie for all rows or one for each, with dead beams; every step is
    checked."""
    walk(cases, layout, norm, beams, count, seed, dtype)


@settings(max_examples=100)
@given(key_lists(), st.integers(0, 10**6))
def test_vocabularies_of_any_size(case, seed):
    size, sequences = case
    torch.manual_seed(seed)
    logits_BKV = torch.randn(2, 1, size)
    for layout in ("ragged", "fixed"):
        (table,) = tables([sequences], layout, size=size)
        found = table.step(logits_BKV, torch.zeros(2, 1), table.start(2), 4)
        check(
            found,
            expected([set(sequences)] * 2, [[()]] * 2, logits_BKV, torch.zeros(2, 1), "full"),
            table,
            4,
        )


@settings(max_examples=200)
@given(key_lists(), st.sampled_from(["ragged", "fixed"]))
def test_advance_allowed_and_ends(case, layout):
    size, sequences = case
    (table,), keys = tables([sequences], layout, size=size), sorted(set(sequences))
    prefixes = sorted({key[:end] for key in keys for end in range(len(key) + 1)} | {()})
    state_N = (
        states_of(table, [[prefix] for prefix in prefixes])[:, 0]
        if len(prefixes) < 40
        else torch.tensor([0])
    )
    for prefix, state in zip(prefixes, state_N.tolist(), strict=False):
        assert table.allowed(state) == [token for token, _ in continuations(set(keys), prefix)]
        assert bool(table.nodes(torch.tensor([state])).is_end_N) == (prefix in keys)
    for token in (0, 1, 2, size - 1):
        after_N = table.advance(state_N, torch.full_like(state_N, token))
        for prefix, state, after in zip(prefixes, state_N.tolist(), after_N.tolist(), strict=False):
            legal = {t: p for t, p in continuations(set(keys), prefix) if p != prefix}
            assert (after >= 0) == (token in legal), (prefix, token, state)
    nowhere = torch.tensor([-1])
    assert table.advance(nowhere, torch.tensor([2])).tolist() == [-1]
    assert table.allowed(-1) == []


def test_wide_nodes_are_searched_in_strides():
    keys = [(token,) for token in range(0, 5000, 2)] + [(4, 7)]
    for layout in ("ragged", "fixed"):
        (table,) = tables([keys], layout, size=5000)
        token_N = torch.arange(5000)
        state_N = table.advance(torch.zeros(5000, dtype=torch.int64), token_N)
        assert torch.equal(state_N >= 0, token_N % 2 == 0)
        assert torch.equal(table.label[state_N[::2]].long(), token_N[::2])


@pytest.mark.parametrize("norm", ["full", "renorm"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_wide_nodes_and_tokens_of_32_bits(norm, layout):
    size = 40_000
    keys = [(7 * i,) for i in range(1, 700)]
    keys += [(7, i) for i in range(2, 1200)]
    keys += [(14, 2), (21,), (21, 3)]
    (table,) = tables([keys], layout, size)
    for prefixes, count in (([()], 128), ([(7,), (14,), None, (21,)], 8)):
        score_BK = torch.randn(1, len(prefixes))
        logits_BKV = torch.randn(1, len(prefixes), size) + torch.linspace(0, 100, size)
        found = table.step(logits_BKV, score_BK, states_of(table, [prefixes]), count, norm)
        wanted = expected([set(keys)], [prefixes], logits_BKV, score_BK, norm)
        check(found, wanted, table, count)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_may_lie_in_any_order(layout):
    (table,) = tables([[(2,), (3,), (4,), (2, 3)]], layout)
    logits_BKV = torch.randn(2, 1, SIZE + 3)
    plain_BKV = logits_BKV[..., :SIZE].contiguous()
    score_BK = torch.zeros(2, 1)
    wanted = table.step(plain_BKV, score_BK, table.start(2), 3)
    turned = plain_BKV.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    for logits in (logits_BKV[..., :SIZE], turned):
        assert not logits.is_contiguous()
        found = table.step(logits, score_BK, table.start(2), 3)
        for name, part in vars(wanted).items():
            assert torch.equal(getattr(found, name), part), name


@pytest.mark.parametrize("norm", ["full", "renorm"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("beams", [1, 2])
def test_broken_logits_kill_their_beam_alone(norm, layout, beams):
    (table,) = tables([[(2,), (3,), ()]], layout)
    good = torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 7, 8])
    bad = [good.clone() for _ in range(4)]
    bad[0][2], bad[1][3], bad[3][2] = float("nan"), float("inf"), NOWHERE
    bad[2][:] = NOWHERE
    logits_BKV = torch.stack([*bad, good])[:, None].repeat(1, beams, 1)
    state_BK = table.start(5).repeat(1, beams)
    score_BK = torch.tensor([0.0, NOWHERE][:beams]).repeat(5, 1)
    found = table.step(logits_BKV, score_BK, state_BK, 4, norm)
    finite = (found.score_BC > NOWHERE).sum(1).tolist()
    assert finite == [0, 0, 0, 2, 3]
    assert found.token_BC[3].tolist() == [3, EOS, -1, -1]
    assert not found.score_BC.isnan().any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_without_a_beam_and_tries_without_a_key(layout):
    table = concat(tables([[], [(2,)], [()]], layout))
    found = table.step(torch.zeros(3, 1, SIZE), torch.zeros(3, 1), table.start(3), 2, "renorm")
    assert found.token_BC.tolist() == [[-1, -1], [2, -1], [EOS, -1]]
    assert found.score_BC.tolist() == [[NOWHERE, NOWHERE], [0, NOWHERE], [0, NOWHERE]]
    dead = table.step(torch.zeros(3, 2, SIZE), torch.zeros(3, 2), torch.full((3, 2), -1), 2)
    scoreless = table.step(torch.zeros(3, 1, SIZE), torch.full((3, 1), NOWHERE), table.start(3), 2)
    for nothing in (dead, scoreless):
        assert (nothing.score_BC == NOWHERE).all()
        assert (nothing.beam_BC == 0).all()
        assert (nothing.token_BC == -1).all()
        assert (nothing.state_BC == -1).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits(layout, dtype):
    logits = torch.randn(2, 1, SIZE).to(dtype)
    (table,) = tables([[(2, 3), (2,), (4,)]], layout)
    for norm in ("full", "renorm"):
        found = table.step(logits, torch.zeros(2, 1), table.start(2), 3, norm)
        again = table.step(logits.float(), torch.zeros(2, 1), table.start(2), 3, norm)
        torch.testing.assert_close(found.score_BC, again.score_BC)
        assert torch.equal(found.state_BC, again.state_BC)


def test_a_trie_for_each_row():
    table = concat(tables([[(2,)], [(3,)], [(4,), (5,)]]))
    assert [table.allowed(state) for state in table.start(3)[:, 0].tolist()] == [[2], [3], [4, 5]]
    with pytest.raises(SettingsError, match="one for each of 2 rows, got 3"):
        table.start(2)


def test_what_does_not_fit_is_refused():
    trie = TokenTrie.from_sequences([(2,)], SIZE)
    with pytest.raises(SettingsError, match=r"eos_id: expected a token in \[0, 9\), got 9"):
        TrieTable.of(trie, SIZE)
    table = TrieTable.of(trie, EOS)
    with pytest.raises(SettingsError, match="logits: expected 9 tokens, got 8"):
        table.step(torch.zeros(1, 1, 8), torch.zeros(1, 1), table.start(1), 1)
    for unlike in (
        [table, TrieTable.of(trie, 0)],
        [table, TrieTable.of(trie, EOS, layout="fixed")],
        [],
    ):
        with pytest.raises(SettingsError, match="the same eos_id"):
            concat(unlike)


def test_too_many_nodes_are_refused(monkeypatch):
    monkeypatch.setattr("nlpkit.decoding.trie.table.MOST_NODES", 9)
    with pytest.raises(SettingsError, match="at most 9, got 12"):
        concat(tables([[(2, 3, 4)], [(2,)]])[:1] * 2)


def test_the_fixed_layout_says_so_where_its_condition_is_broken():
    (table,) = tables([[(token,) for token in range(2, 302)]], "fixed", 302)
    with pytest.raises(RuntimeError, match="share a node"):
        table.step(
            torch.zeros(1, 2, 302), torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.int64), 1
        )
    with pytest.raises(RuntimeError, match="differ in depth"):
        table.step(torch.zeros(1, 2, 302), torch.zeros(1, 2), torch.tensor([[0, -1]]), 1, depth=1)


def test_many_beams_have_room_at_every_depth():
    """Capacities are powers of two: of exact numbers up to 64 beams, and of a bound beyond."""
    keys = [(first, second) for first in range(2, 92) for second in range(2, 2 + first % 7)]
    keys += [(2, 2, last) for last in range(2, 302)]
    (table,), fans = (
        tables([keys], "fixed", 400),
        sorted((first % 7 for first in range(2, 92)), reverse=True),
    )
    assert [row[0] for row in table.widest] == [77, 6, 300, 0]
    assert table.widest[1][63] == sum(fans[:64])
    assert [table.capacity(8, depth) for depth in (0, 1, 2, 3, 9, None)] == [
        256,
        256,
        512,
        256,
        256,
        512,
    ]
    assert [table.capacity(beams, 1) for beams in (64, 120)] == [512, 1024]
    both = concat(
        [
            *tables([keys], "fixed", 400),
            *tables([[(token,) for token in range(2, 302)]], "fixed", 400),
        ]
    )
    assert [row[0] for row in both.widest] == [300, 6, 300, 0]
    root = table.step(torch.randn(1, 1, 400), torch.zeros(1, 1), table.start(1), 80)
    state_BK = root.state_BC[:, :77]
    assert (state_BK >= 0).all()
    found = table.step(torch.randn(1, 77, 400), torch.zeros(1, 77), state_BK, 400, "renorm", 1)
    assert int((found.state_BC >= 0).sum()) == sum(fans)


@pytest.mark.parametrize("norm", ["full", "renorm"])
def test_the_fixed_layout_never_waits_for_the_device(norm):
    """A tensor on `meta` has no content: whatever asked for it, or had a shape that depends on it,
    would raise."""
    (table,) = tables([[(2,), (3, 4), (3, 5)]], "fixed")
    parts = {
        name: part.to("meta")
        for name, part in vars(table).items()
        if isinstance(part, torch.Tensor)
    }
    table = replace(table, **parts)
    state_BK, score_BK = table.start(2), torch.zeros(2, 1, device="meta")
    for beams in (1, 3):
        found = table.step(torch.empty(2, beams, SIZE, device="meta"), score_BK, state_BK, 3, norm)
        score_BK, chosen_BK = found.score_BC.topk(3)
        state_BK = table.follow(state_BK, found, chosen_BK)
    table.advance(state_BK.flatten(), found.token_BC.flatten())
    with pytest.raises((RuntimeError, NotImplementedError)):
        replace(table, layout="ragged").step(
            torch.empty(2, 3, SIZE, device="meta"), score_BK, state_BK, 3, norm
        )


def test_normalisers_of_any_rows():
    logits_NV = torch.randn(37, 500) * 20
    logits_NV[3, ::2] = NOWHERE
    logits_NV[8, 250] = NOWHERE
    logits_NV[4] = NOWHERE
    logits_NV[5, :] = NOWHERE
    logits_NV[5, 7] = 2.5
    logits_NV[6, 9] = float("nan")
    logits_NV[7, 9] = float("inf")
    total_N = log_totals(logits_NV)
    torch.testing.assert_close(total_N, logits_NV.logsumexp(1), equal_nan=True)
