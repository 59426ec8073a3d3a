"""Match features, by hand and against brute force."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlpkit import encoders
from nlpkit.errors import SettingsError
from nlpkit.tasks._mrc.matching import FEATURES, MatchEmbedding, match_features, places_of

UNK = 1
TOKENS = st.lists(st.integers(1, 4), max_size=9)


def brute(token_ids, others, place, length):
    """Whether a run of `length` tokens around a place stands in the others too."""
    for start in range(place - length + 1, place + 1):
        run = token_ids[start : start + length]
        if start < 0 or len(run) < length or UNK in run:
            continue
        if any(others[at : at + length] == run for at in range(len(others))):
            return True
    return False


@given(TOKENS, TOKENS, st.integers(0, 3), st.integers(0, 3))
def test_features_are_those_of_brute_force(question, passage, before, between):
    column = before + len(question) + between
    width = column + len(passage) + 2
    (features_TF,) = match_features([(before, question)], [(column, passage)], width, UNK)
    expected_TF = torch.zeros(width, FEATURES)
    for length in (1, 2, 3):
        for place in range(len(question)):
            expected_TF[before + place, length - 1] = brute(question, passage, place, length)
        for place in range(len(passage)):
            expected_TF[column + place, length + 2] = brute(passage, question, place, length)
    assert features_TF.equal(expected_TF)


def test_places_of_texts():
    assert places_of([(1, [7, 8]), (0, [])], 4).tolist() == [
        [False, True, True, False],
        [False] * 4,
    ]


def test_the_features_change_nothing_before_they_are_learnt():
    encoder, _ = encoders.for_pretraining(
        None, encoders.ShapeConfig(layers=1, hidden_size=16, heads=2, intermediate_size=16)
    )
    match = MatchEmbedding(encoder)
    token_ids_RT = torch.tensor([[2, 30, 3]])
    features_RTF = torch.ones(1, 3, FEATURES)
    words_RTE = match(encoder, token_ids_RT, features_RTF)
    assert words_RTE.equal(encoder.word_vectors(token_ids_RT))
    torch.nn.init.ones_(match.project.weight)
    moved_RTE = match(encoder, token_ids_RT, features_RTF)
    assert torch.allclose(moved_RTE, words_RTE + FEATURES)


def test_an_encoder_without_input_vectors_is_refused():
    with pytest.raises(SettingsError, match="match_features") as error:
        MatchEmbedding(torch.nn.Linear(2, 2))
    assert "match_features=false" in error.value.hint
