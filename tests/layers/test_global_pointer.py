"""GlobalPointer: both forms against a dense float64 reference, with scores up to +-50."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.layers import global_pointer
from nlpkit.layers.global_pointer import (
    GlobalPointer,
    PairScores,
    multilabel_loss,
    overlap_loss,
    rotate,
)


def random_scores(seed, factorised, scale, batch=3, tokens=7, heads=5):
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return (torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1) * scale

    content_BT = torch.arange(tokens) < torch.randint(
        0, tokens + 1, (batch, 1), generator=generator
    )
    allowed_BTT = content_BT[:, :, None] & content_BT[:, None, :]
    if factorised:
        parts = (
            uniform(batch, tokens, tokens),
            uniform(batch, tokens, heads),
            uniform(batch, tokens, heads),
        )
    else:
        parts = uniform(batch, heads, tokens, tokens), None, None
    scores = PairScores(
        *(part if part is None else part.float().requires_grad_() for part in parts), allowed_BTT
    )
    cells = allowed_BTT[:, None].expand(-1, heads, -1, -1).nonzero()
    chosen = torch.rand(len(cells), generator=generator) < 0.05
    return scores, cells[chosen]


def reference_loss(scores, gold_N4):
    dense_BPTT = scores.dense().double()
    gold_BPTT = torch.zeros_like(dense_BPTT, dtype=torch.bool)
    gold_BPTT[tuple(gold_N4.T)] = True

    def one_plus(values):
        return torch.cat(
            [values.flatten(2), torch.zeros(*values.shape[:2], 1).double()], 2
        ).logsumexp(2)

    infinity = float("inf")
    return one_plus((-dense_BPTT).masked_fill(~gold_BPTT, -infinity)) + one_plus(
        dense_BPTT.masked_fill(gold_BPTT, -infinity)
    )


@settings(max_examples=80)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([1.0, 10.0, 50.0]))
def test_loss_and_gradient_equal_the_dense_reference(seed, factorised, scale):
    scores, gold_N4 = random_scores(seed, factorised, scale)
    leaves = [part for part in (scores.pair, scores.start_BTP, scores.end_BTP) if part is not None]
    ours, reference = sum(multilabel_loss(scores, gold_N4)), reference_loss(scores, gold_N4)
    torch.testing.assert_close(ours, reference, rtol=1e-6, atol=1e-6)
    for mine, theirs in zip(
        torch.autograd.grad(ours.sum(), leaves),
        torch.autograd.grad(reference.sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factorised", [True, False])
def test_rows_with_gold_may_be_summed_in_pieces(factorised, monkeypatch):
    found = []
    for most in (1, 3 * 9 * 9, 1 << 20):  # one row at once, three, all
        monkeypatch.setattr(global_pointer, "CELLS_AT_ONCE", most)
        scores, gold_N4 = random_scores(3, factorised, 10.0, batch=6, tokens=9)
        assert len(gold_N4) > 5
        parts = (scores.pair, scores.start_BTP, scores.end_BTP)
        leaves = [None if part is None else part.detach().double() for part in parts]
        wide = [part.requires_grad_() for part in leaves if part is not None]
        terms = multilabel_loss(PairScores(*leaves, scores.allowed_BTT), gold_N4.flip(0))
        gradients = torch.autograd.grad(sum(terms).sum(), wide)
        found.append([*terms, *gradients])
    for some in found[:2]:
        for one, whole in zip(some, found[2], strict=True):
            torch.testing.assert_close(one, whole, rtol=1e-13, atol=1e-13)


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_where_gold_may_be_missing_only_what_overlaps_it_counts(seed):
    scores, cells_N4 = random_scores(seed, True, 10.0)
    scores.allowed_BTT = scores.allowed_BTT.triu()
    gold_N4 = cells_N4[cells_N4[:, 2] <= cells_N4[:, 3]]
    dense_BPTT = scores.dense().double()
    others_BPTT = torch.zeros_like(dense_BPTT, dtype=torch.bool)
    spans = [
        {(i, j) for b, _, i, j in gold_N4.tolist() if b == text} for text in range(len(dense_BPTT))
    ]
    for b, _, i, j in others_BPTT.logical_not().nonzero().tolist():
        others_BPTT[b, :, i, j] = (i, j) not in spans[b] and any(
            i <= last and first <= j for first, last in spans[b]
        )
    expected = torch.log1p(dense_BPTT.exp().masked_fill(~others_BPTT, 0).sum((2, 3)))
    torch.testing.assert_close(overlap_loss(scores, gold_N4), expected, rtol=1e-6, atol=1e-6)


def test_a_dominating_gold_score_leaves_the_negative_part_exact():
    """A gold score of 30 hides e^-20 in every difference of float32 sums; ours keeps it."""
    pair = torch.full((1, 1, 2, 2), -20.0)
    pair[0, 0, 0, 1] = 30.0
    scores = PairScores(pair, None, None, torch.ones(1, 2, 2, dtype=torch.bool))
    loss = sum(multilabel_loss(scores, torch.tensor([[0, 0, 0, 1]])))
    expected = torch.log1p(3 * torch.tensor(-20.0).double().exp()) + torch.log1p(
        torch.tensor(-30.0).double().exp()
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_text_without_content_costs_nothing_and_has_a_finite_gradient():
    pointer = GlobalPointer(8, 3, head_size=4)
    scores = pointer(torch.randn(1, 4, 8), torch.zeros(1, 4, dtype=torch.bool))
    loss = sum(multilabel_loss(scores, torch.zeros(0, 4, dtype=torch.long))).sum()
    loss.backward()
    assert loss.item() == 0
    assert all(torch.isfinite(p.grad).all() for p in pointer.parameters() if p.grad is not None)


@pytest.mark.parametrize("efficient", [True, False])
def test_cells_rows_and_dense_agree(efficient):
    pointer = GlobalPointer(8, 3, head_size=4, efficient=efficient, ordered=False)
    content_BT = torch.tensor([[0, 1, 1, 1, 0], [0, 1, 1, 0, 0]]).bool()
    scores = pointer(torch.randn(2, 5, 8), content_BT)
    dense_BPTT = scores.dense()
    assert dense_BPTT.shape == (2, 3, 5, 5)
    torch.testing.assert_close(
        scores.rows(torch.tensor([1]), torch.tensor([2]))[0], dense_BPTT[1, 2]
    )
    b, i, j = torch.tensor([0, 1]), torch.tensor([3, 2]), torch.tensor([1, 2])
    torch.testing.assert_close(
        scores.cells(b, i, j), torch.stack([dense_BPTT[0, :, 3, 1], dense_BPTT[1, :, 2, 2]])
    )


def test_an_ordered_pointer_scores_no_span_that_ends_before_it_starts():
    scores = GlobalPointer(8, 2, head_size=4)(
        torch.randn(1, 6, 8), torch.ones(1, 6, dtype=torch.bool)
    )
    assert torch.isinf(scores.dense()[0, :, 3, 2]).all()
    assert torch.isfinite(scores.dense()[0, :, 2, 3]).all()


def test_rotation_makes_products_depend_on_the_distance_alone():
    query, key = torch.randn(8), torch.randn(8)
    products_TT = rotate(query.expand(6, 8)) @ rotate(key.expand(6, 8)).T
    for distance in range(-3, 4):
        diagonal = products_TT.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("factorised", [True, False])
def test_log_probs_are_those_of_a_decision_on_each_allowed_pair(factorised):
    scores, _ = random_scores(3, factorised, 20.0)
    found_BN2 = scores.log_probs()
    dense_BN = scores.dense().flatten(1)
    allowed_BN = scores.allowed_BTT[:, None].expand(-1, scores.heads, -1, -1).flatten(1)
    torch.testing.assert_close(found_BN2.exp().sum(2), torch.ones_like(dense_BN))
    odds_BN = found_BN2[..., 0] - found_BN2[..., 1]
    torch.testing.assert_close(odds_BN[allowed_BN], dense_BN[allowed_BN])
    assert (odds_BN[~allowed_BN] == 0).all()
    found_BN2.sum().backward()
    assert torch.isfinite(scores.pair.grad).all()
