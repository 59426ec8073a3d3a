"""The best of a row against a stable sort, with equal scores and dead ones."""

import pytest
import torch

from nlpkit.decoding.best import NEGATIVE_INFINITY, first_best


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 5, 6, 40, 3000])
def test_of_equal_scores_the_first_is_taken(width, dtype):
    generator = torch.Generator().manual_seed(width)
    score_BX = torch.randint(-4, 4, (20, width), generator=generator).to(dtype)
    score_BX[:5] = torch.randn((5, width), generator=generator).to(dtype)
    score_BX[::3, ::2] = NEGATIVE_INFINITY
    count = min(5, width)
    best_BN, index_BN = first_best(score_BX, count)
    expected_BX, place_BX = score_BX.sort(dim=1, descending=True, stable=True)
    assert torch.equal(best_BN, expected_BX[:, :count])
    alive_BN = best_BN > NEGATIVE_INFINITY
    assert torch.equal(index_BN[alive_BN], place_BX[:, :count][alive_BN])


def test_what_follows_a_row_does_not_matter():
    score_BX = torch.tensor([[0.5, 1.0, 1.0, 1.0, -2.0]])
    wider_BX = torch.nn.functional.pad(score_BX, (0, 200), value=NEGATIVE_INFINITY)
    for count in (1, 2, 3, 4):
        assert first_best(score_BX, count)[1].tolist() == first_best(wider_BX, count)[1].tolist()
