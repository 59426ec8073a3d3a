"""Performer against softmax attention, in float64."""

import math

import pytest
import torch

from nlpkit.encoders.base import additive_mask
from nlpkit.errors import SettingsError
from nlpkit.layers.performer import Performer, orthogonal_features

SIZE = 8


def vectors(length: int = 7, spread: float = 1.0) -> list[torch.Tensor]:
    """Queries, keys and values, (2, 3, `length`, SIZE) each."""
    generator = torch.Generator().manual_seed(length)
    shape = (3, 2, 3, length, SIZE)
    return list(spread * torch.randn(shape, generator=generator, dtype=torch.float64))


def mask_of(*lengths: int, longest: int = 7) -> torch.Tensor:
    visible_BT = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return additive_mask(visible_BT[:, None], torch.float64)


def softmax_attention(query, key, value, mask):
    score = query @ key.transpose(2, 3) / math.sqrt(SIZE) + mask
    return score.softmax(-1) @ value


def performer(features: int, redraw: int = 0) -> Performer:
    return Performer(SIZE, features, redraw).double().train()


def test_products_of_features_are_exponentials_in_the_mean() -> None:
    """Over many draws of a few orthogonal features; the error is far below a few of its own
    deviations."""
    query_D, key_D = vectors(spread=0.5)[0][0, 0, :2]
    scaled_2D = torch.stack([query_D, key_D]) * SIZE**-0.25
    generator = torch.Generator().manual_seed(1)
    draws = []
    for _ in range(3000):
        feature_MD = orthogonal_features(SIZE, SIZE, generator)
        exponent_2M = scaled_2D @ feature_MD.t() - scaled_2D.square().sum(1, keepdim=True) / 2
        draws.append(exponent_2M.sum(0).exp().mean())
    products = torch.stack(draws)
    expected = (query_D @ key_D / math.sqrt(SIZE)).exp()
    deviation = products.std() / math.sqrt(len(products))
    assert abs(products.mean() - expected) < 3 * deviation
    assert deviation < 0.05 * expected


def test_features_are_gaussian_and_orthogonal_in_blocks() -> None:
    feature_MD = orthogonal_features(20, SIZE, torch.Generator().manual_seed(2))
    assert feature_MD.shape == (20, SIZE)
    product_MM = feature_MD @ feature_MD.t()
    for start, end in ((0, 8), (8, 16), (16, 20)):
        block = product_MM[start:end, start:end]
        torch.testing.assert_close(block, block.diagonal().diag(), rtol=0, atol=1e-12)
    many_MD = orthogonal_features(40_000, SIZE, torch.Generator().manual_seed(3))
    assert many_MD.mean().abs() < 0.01
    torch.testing.assert_close(
        many_MD.t() @ many_MD / 40_000, torch.eye(SIZE, dtype=torch.float64), rtol=0, atol=0.03
    )
    assert many_MD.square().sum(1).var().item() == pytest.approx(2 * SIZE, rel=0.05)  # chi squared


def test_it_comes_close_to_softmax_attention_as_features_grow() -> None:
    query, key, value = vectors(spread=0.3)
    mask = mask_of(7, 5)
    expected = softmax_attention(query, key, value, mask)
    errors = []
    for features in (16, 256, 4096):
        found = [performer(features)(query, key, value, mask) for _ in range(8)]
        errors.append(torch.stack(found).sub(expected).square().mean().sqrt().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.4)  # 1 / sqrt(M)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.4)
    assert errors[2] < 0.002


@pytest.mark.parametrize("training", [True, False])
def test_padding_is_not_seen(training: bool) -> None:
    query, key, value = vectors()
    reader = performer(64).train(training)
    mask = mask_of(7, 5)
    found = reader(query, key, value, mask)
    key[1, :, 5:] = 1e3
    value[1, :, 5:] = -1e3
    assert torch.equal(reader(query, key, value, mask), found)
    alone = reader(query[1:, :, :5], key[1:, :, :5], value[1:, :, :5], mask[1:, :, :, :5])
    torch.testing.assert_close(alone, found[1:, :, :5])
    assert torch.isfinite(reader(query, key, value, mask_of(0, 0))).all()


def test_in_prediction_a_row_has_the_same_bits_alone_and_padded() -> None:
    reader = Performer(SIZE, 64).eval()
    for length, longest in ((5, 16), (130, 304), (250, 304)):
        query, key, value = (tensor.float() for tensor in vectors(longest))
        mask = mask_of(longest, length, longest=longest).float()
        found = reader(query, key, value, mask)[1:, :, :length]
        parts = (tensor[1:, :, :length] for tensor in (query, key, value))
        alone = reader(*parts, mask[1:, :, :, :length])
        assert torch.equal(alone, found)


def test_large_vectors_do_not_overflow() -> None:
    query, key, value = (tensor.float() for tensor in vectors(spread=60.0))
    context = Performer(SIZE, 32)(query, key, value, mask_of(7, 5).float())
    assert torch.isfinite(context).all()


def test_its_gradient_is_the_finite_difference() -> None:
    tensors = [tensor[:, :1, :3].clone().requires_grad_() for tensor in vectors()]
    reader = performer(6)
    mask = mask_of(3, 2, longest=3)
    assert torch.autograd.gradcheck(lambda *given: reader(*given, mask), tensors)


def test_features_are_drawn_anew_by_the_steps_and_the_kept_seed() -> None:
    torch.manual_seed(5)
    reader = performer(16, redraw=2)
    first = reader.feature_MD.clone()
    reader.count_examples(9)
    assert torch.equal(reader.feature_MD, first)
    reader.count_examples(9)
    second = reader.feature_MD.clone()
    assert not torch.equal(second, first)
    other = performer(16, redraw=2)
    other.load_state_dict(reader.state_dict())
    assert torch.equal(other.feature_MD, second)
    torch.rand(3)  # the general generator has no part in it
    for one in (reader, other):
        one.count_examples(9)
        one.count_examples(9)
    assert torch.equal(other.feature_MD, reader.feature_MD)
    fixed = performer(16)
    before = fixed.feature_MD.clone()
    for _ in range(5):
        fixed.count_examples(9)
    assert torch.equal(fixed.feature_MD, before)


def test_a_mask_that_differs_by_query_is_refused() -> None:
    query, key, value = vectors()
    mask = torch.zeros(2, 1, 7, 7, dtype=torch.float64)
    with pytest.raises(SettingsError, match="no mask that differs by query"):
        performer(8)(query, key, value, mask)
