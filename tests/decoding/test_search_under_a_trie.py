"""The search and the trie together: with enough beams the best keys of the whole trie, by brute
force."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.decoding.search import beam_search
from nlpkit.decoding.trie.one_key import has_one_key
from nlpkit.decoding.trie.table import TrieTable
from nlpkit.decoding.trie.token_trie import TokenTrie

VOCABULARY, EOS = 7, 6
KEYS = st.lists(
    st.lists(st.integers(0, 5), max_size=4).map(tuple), min_size=1, max_size=12, unique=True
)


class Bigrams:
    """A model whose scores depend on the row, the last token and the length."""

    def __init__(self, rows, seed):
        self.table = torch.randn(
            (rows, 6, VOCABULARY + 1, VOCABULARY), generator=torch.Generator().manual_seed(seed)
        )
        self.length = 0

    def first(self):
        return self.table[:, 0, VOCABULARY]

    def next(self, token_BK, beam_BK):
        self.length += 1
        rows = torch.arange(len(self.table))[:, None]
        return self.table[rows, self.length, token_BK]

    def score(self, row, key):
        """Log-probability of a key and its end among all tokens, in float64."""
        total, last = 0.0, VOCABULARY
        for place, token in enumerate([*key, EOS]):
            total += self.table[row, place, last].double().log_softmax(-1)[token].item()
            last = token
        return total


@given(KEYS, st.integers(0, 99))
@settings(max_examples=60)
def test_enough_beams_find_the_best_keys_of_the_trie(keys, seed):
    trie = TokenTrie.from_sequences(
        keys, VOCABULARY, values=["".join(map(str, key)) for key in keys]
    )
    model = Bigrams(2, seed)
    found = beam_search(model, TrieTable.of(trie, EOS), 2, beam_size=16, max_length=4)
    for row in range(2):
        expected = sorted(((model.score(row, key), key) for key in keys), reverse=True)
        listed = [(score, tuple(tokens)) for tokens, score in found.lists()[row]]
        assert [key for _, key in listed] == [key for _, key in expected]
        for (score, _), (wanted, _) in zip(listed, expected, strict=True):
            assert score == pytest.approx(wanted, abs=1e-5)
        states = found.state_BK[row, : len(keys)].tolist()
        ends = [trie.key_range(state)[0] for state in states]
        assert trie.keys(ends) == [key for _, key in expected]
        assert [list(trie.values.of(end)) for end in ends] == [
            ["".join(map(str, key))] for _, key in expected
        ]


def test_renormalised_scores_are_probabilities_over_the_keys():
    """Among the legal tokens only, the probabilities of all keys add up to one."""
    keys = [key for length in range(4) for key in itertools.product((0, 3), repeat=length)]
    table = TrieTable.of(TokenTrie.from_sequences(keys, VOCABULARY), EOS)
    found = beam_search(Bigrams(1, 5), table, 1, beam_size=32, max_length=4, norm="renorm")
    assert found.score_BK[0, : len(keys)].exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    assert torch.isinf(found.score_BK[0, len(keys) :]).all()


@given(KEYS)
@settings(max_examples=60)
def test_a_node_that_is_said_to_have_one_key_has_one(keys):
    trie = TokenTrie.from_sequences(keys, VOCABULARY)
    table = TrieTable.of(trie, EOS, key_ranges=True)
    nodes = range(len(trie.csr.first_child) - 2)
    said = has_one_key(table, torch.tensor([*nodes, -1])).tolist()
    assert not said.pop()
    for node in nodes:
        assert len(trie.key_range(node)) == 1 or not said[node]


def test_nodes_of_one_key_by_hand():
    trie = TokenTrie.from_sequences([(0, 1, 2), (0, 3, 2), (4, 1, 2), (5,)], VOCABULARY)
    table = TrieTable.of(trie, EOS, key_ranges=True)
    # root; 0, 4, 5; 0 1, 0 3, 4 1; 0 1 2, 0 3 2, 4 1 2. The last of a level is not known to have
    # one; behind 4 1 2 comes the shorter key 5.
    expected = [False, False, True, False, True, True, False, True, True, False]
    assert has_one_key(table, torch.arange(10)).tolist() == expected


@pytest.mark.parametrize("beams", [1, 2, 16])
@given(KEYS, st.integers(0, 99))
@settings(max_examples=40)
def test_beams_of_one_key_need_no_model(beams, keys, seed):
    table = TrieTable.of(TokenTrie.from_sequences(keys, VOCABULARY), EOS, key_ranges=True)

    def is_decided(state_BK):
        return has_one_key(table, state_BK.flatten()).view(state_BK.shape)

    expected = beam_search(Bigrams(2, seed), table, 2, beams, 4, norm="renorm").lists()
    model = Bigrams(2, seed)
    found = beam_search(model, table, 2, beams, 4, norm="renorm", is_decided=is_decided).lists()
    for row, expected_row in zip(found, expected, strict=True):
        assert [tokens for tokens, _ in row] == [tokens for tokens, _ in expected_row]
        scores = [score for _, score in row]
        assert scores == pytest.approx([score for _, score in expected_row], abs=1e-5)


def test_a_beam_that_needs_no_model_never_needs_it_again():
    keys = [(2, 1, 4), (3,), (4, 2, 2), (4, 3)]  # 2 is said to have one key, 2 1 is not
    table = TrieTable.of(TokenTrie.from_sequences(keys, VOCABULARY), EOS, key_ranges=True)
    model = Bigrams(1, 5)
    asked = []

    def following(token_BK, beam_BK):
        asked.append(token_BK[0].tolist())
        return Bigrams.next(model, token_BK, beam_BK)

    model.next = following

    def is_decided(state_BK):
        return has_one_key(table, state_BK.flatten()).view(state_BK.shape)

    beam_search(model, table, 1, 4, 3, norm="renorm", is_decided=is_decided)
    assert 2 not in asked[0]
    assert 1 not in [token for tokens in asked[1:] for token in tokens]
    with pytest.raises(ValueError, match="renorm, got full"):
        beam_search(Bigrams(1, 5), table, 1, 4, 3, is_decided=is_decided)
