"""Every key scored by hand against the propagation through the levels."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_trie import EOS, key_lists

from nlpkit.decoding.trie import best_keys as module
from nlpkit.decoding.trie.best_keys import choices
from nlpkit.decoding.trie.table import TrieTable, concat
from nlpkit.decoding.trie.token_trie import TokenTrie

SIZE = 9


def scored(keys, log_probs_TV):
    """(score, key) of all keys that fit, best first."""
    positions, found = len(log_probs_TV), []
    for key in keys:
        if len(key) <= positions:
            steps = [*key, EOS][:positions]
            found.append(
                (sum(float(log_probs_TV[place, token]) for place, token in enumerate(steps)), key)
            )
    return sorted(found, reverse=True)


@settings(max_examples=200)
@given(
    st.lists(key_lists(SIZE), min_size=1, max_size=3),
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(0, 10**6),
    st.sampled_from([1, 1 << 24]),
)
def test_the_best_keys_are_found(cases, positions, count, seed, most_scores):
    torch.manual_seed(seed)
    tries = [TokenTrie.from_sequences(keys, SIZE) for _, keys in cases]
    table = concat([TrieTable.of(trie, EOS, key_ranges=True) for trie in tries])
    rows = len(tries) if len(tries) > 1 else seed % 4 + 1
    tries = tries * rows if len(tries) == 1 else tries
    log_probs_BTV = torch.randn(rows, positions, SIZE).log_softmax(2)
    before, module.MOST_SCORES = module.MOST_SCORES, most_scores
    score_BN, state_BN = choices(log_probs_BTV, table, count)
    module.MOST_SCORES = before
    key_BN, _ = table.key_range(state_BN.flatten())
    for row, trie in enumerate(tries):
        found = scored(trie.keys(range(len(trie))), log_probs_BTV[row])[:count]
        assert (state_BN[row] >= 0).sum() == len(found)
        keys = trie.keys(key_BN.view(rows, count)[row][: len(found)].numpy())
        assert len(set(keys)) == len(keys)
        for (score, _), ours, key in zip(found, score_BN[row].tolist(), keys, strict=False):
            assert abs(score - ours) < 1e-5
            assert abs(scored([key], log_probs_BTV[row])[0][0] - ours) < 1e-5  # keys may tie
        assert (score_BN[row, len(found) :] == float("-inf")).all()


def test_impossible_and_broken_positions():
    table = TrieTable.of(TokenTrie.from_sequences([(2,), (3,), (3, 4)], SIZE), EOS)
    log_probs_BTV = torch.zeros(2, 2, SIZE)
    log_probs_BTV[0, 0, 2], log_probs_BTV[0, 0, 3] = float("-inf"), float("nan")
    log_probs_BTV[1, 1, EOS] = -5
    score_BN, state_BN = choices(log_probs_BTV, table, 2)
    assert state_BN[0].tolist() == [-1, -1]
    assert score_BN[1].tolist() == [0, -5]
    assert (
        table.advance(table.advance(torch.tensor([0]), torch.tensor([3])), torch.tensor([4]))
        == state_BN[1, 0]
    )
