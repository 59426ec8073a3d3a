"""Constraints by position."""

import pytest
import torch
from decoding_reference import EOS, TinyModel, V, assert_same, plain_beam_search

from nlpkit.decoding.per_position import Free, Patterned, PerPosition
from nlpkit.decoding.search import beam_search


@pytest.mark.parametrize("norm", ["full", "renorm"])
def test_banned_tokens_and_least_length(norm):
    def legal(prefix):
        return {1, 3, 4} | ({EOS} if len(prefix) >= 2 else set())

    model = TinyModel(3)
    found = beam_search(
        model, Free(V, EOS, banned=[0, 2], min_length=2), 3, 4, 4, norm=norm
    ).lists()
    for row in range(3):
        assert_same(found[row], plain_beam_search(model, row, legal, 4, 4, norm))
        assert all(len(sequence) >= 2 for sequence, _ in found[row])


def test_lines_of_a_poem():
    comma, metre = 4, "xx,xx,"
    legal_TV = torch.zeros(len(metre) + 1, V, dtype=torch.bool)
    for position, kind in enumerate(metre):
        legal_TV[position, [comma] if kind == "," else [0, 1, 2, 3]] = True
    legal_TV[-1, EOS] = True
    for sequence, _ in beam_search(TinyModel(1), PerPosition(legal_TV, EOS), 1, 5, 10).lists()[0]:
        assert [token == comma for token in sequence] == [kind == "," for kind in metre]


def test_every_row_its_own():
    legal_BTV = torch.zeros(2, 1, V, dtype=torch.bool)
    legal_BTV[:, :, EOS] = True
    legal_BTV[0, :, 1] = legal_BTV[1, :, 2] = True
    found = beam_search(TinyModel(2), PerPosition(legal_BTV, EOS), 2, 4, 3)
    for row, token in enumerate((1, 2)):
        assert sorted(sequence for sequence, _ in found.lists()[row]) == [
            [token] * n for n in range(4)
        ]
    assert torch.equal(found.state_BK, found.length_BK)
    with pytest.raises(ValueError, match="expected 2 rows, got 3"):
        PerPosition(legal_BTV, EOS).start(3)


def test_positions_of_a_kind_are_positions_with_a_mask_each():
    generator = torch.Generator().manual_seed(1)
    legal_KV = torch.rand(3, V, generator=generator) < 0.6
    legal_KV[2, EOS] = True
    kind_BT = torch.tensor([[0, 1, 0, 2], [1, 1, 2, 2]])
    start_B = torch.tensor([0, 1])
    patterned = beam_search(
        TinyModel(2), Patterned(legal_KV, EOS, kind_BT, start_B), 2, 4, 5
    ).lists()
    for_each = PerPosition(legal_KV[torch.tensor([[0, 1, 0, 2], [1, 2, 2, 2]])], EOS)
    assert patterned == beam_search(TinyModel(2), for_each, 2, 4, 5).lists()
    assert any(patterned)
    with pytest.raises(ValueError, match="expected 2 rows, got 3"):
        Patterned(legal_KV, EOS, kind_BT, start_B).start(3)
