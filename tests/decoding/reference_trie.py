"""What the tests of tries compare with: sets of tuples, float64, and no cleverness. And the tries
they are tried on."""

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from nlpkit.decoding.trie.table import TrieTable, concat
from nlpkit.decoding.trie.token_trie import TokenTrie

EOS, SIZE = 1, 9
NOWHERE = float("-inf")
LAYOUTS = ["ragged", "fixed"]


@st.composite
def key_lists(draw, vocabulary_size=None):
    """(vocabulary size, keys in any order): short alphabets, so that keys begin alike, are equal,
    empty or none."""
    size = vocabulary_size or draw(st.sampled_from([4, 9, 32768, 32769, 65536, 70000]))
    alphabet = [0, 2, 3, size - 1, size - 2, *draw(st.lists(st.integers(0, size - 1), max_size=3))]
    key = st.lists(st.sampled_from(alphabet), max_size=draw(st.sampled_from([1, 3, 10]))).map(tuple)
    return size, draw(st.lists(key, max_size=draw(st.sampled_from([1, 4, 30]))))


def continuations(keys, prefix):
    """(token, what follows) of a prefix, its end as (EOS, prefix)."""
    deeper = {
        key[: len(prefix) + 1]
        for key in keys
        if key[: len(prefix)] == prefix and len(key) > len(prefix)
    }
    return sorted((key[-1], key) for key in deeper) + [(EOS, prefix)] * (prefix in keys)


def expected(keys_B, prefix_BK, logits_BKV, score_BK, norm):
    """For every row its candidates (score, beam, token, prefix), best first."""
    rows = []
    for keys, prefixes, logits_KV, scores in zip(
        keys_B, prefix_BK, logits_BKV.double(), score_BK.double(), strict=True
    ):
        row = []
        for beam, (prefix, logits_V, score) in enumerate(
            zip(prefixes, logits_KV, scores, strict=True)
        ):
            legal = continuations(keys, prefix) if prefix is not None and score > -np.inf else []
            of_legal = logits_V[[token for token, _ in legal]]
            total = torch.logsumexp(logits_V if norm == "full" else of_legal, 0)
            row += [
                (float(score + logits_V[token] - total), beam, token, end) for token, end in legal
            ]
        rows.append(sorted(row, reverse=True))
    return rows


def tables(key_sets, layout="ragged", size=SIZE):
    """On a CPU."""
    tries = [TokenTrie.from_sequences(keys, size) for keys in key_sets]
    return [TrieTable.of(trie, EOS, layout=layout) for trie in tries]


def states_of(table, prefix_BK):
    """The states of prefixes of each row, -1 for None; the table lies on a CPU."""
    roots = table.start(len(prefix_BK))[:, 0]
    state_BK = torch.full((len(prefix_BK), len(prefix_BK[0])), -1)
    for row, prefixes in enumerate(prefix_BK):
        for beam, prefix in enumerate(prefixes):
            if prefix is not None:
                state = roots[row : row + 1]
                for token in prefix:
                    state = table.advance(state, torch.tensor([token]))
                state_BK[row, beam] = state[0]
    return state_BK


def check(found, rows, table, count):
    """What was found is the best of what was expected, state by state, and nothing behind it."""
    for row, candidates in enumerate(rows):
        candidates = [candidate for candidate in candidates if candidate[0] > NOWHERE]
        known = min(count, len(candidates))
        scores = found.score_BC[row]
        assert scores.shape == (count,)
        best = torch.tensor([score for score, *_ in candidates[:known]], dtype=torch.float64)
        torch.testing.assert_close(scores[:known].double(), best, rtol=1e-5, atol=1e-5)
        parts = (
            found.beam_BC[row].tolist(),
            found.token_BC[row].tolist(),
            found.state_BC[row].tolist(),
        )
        places = list(zip(*parts, strict=True))
        legal = {}
        for score, beam, token, prefix in candidates:
            single = [[None]] * len(rows)
            single[row] = [prefix]
            legal[beam, token, int(states_of(table, single)[row, 0])] = score
        assert len(set(places[:known])) == known
        for place, score in zip(places[:known], scores[:known].tolist(), strict=True):
            assert score == pytest.approx(legal[place], rel=1e-5, abs=1e-5)
        assert (scores[known:] == NOWHERE).all()
        assert places[known:] == [(0, -1, -1)] * (count - known)


def walk(cases, layout, norm, beams, count, seed, dtype=torch.float32):
    """A search through one trie for all rows or one for each, with dead beams; every step is
    checked."""
    torch.manual_seed(seed)
    key_sets = [set(keys) for _, keys in cases]
    rows = len(key_sets) if len(key_sets) > 1 else seed % 3 + 1
    table, on_host = concat(tables(key_sets, layout)), concat(tables(key_sets))
    key_sets = key_sets * rows if len(key_sets) == 1 else key_sets
    prefix_BK, score_BK, state_BK = [[()]] * rows, torch.zeros(rows, 1), on_host.start(rows)
    for depth in range(5):
        logits_BKV = (torch.randn(rows, state_BK.shape[1], SIZE + 2) * 3).to(dtype)
        found = table.step(logits_BKV, score_BK, state_BK, count, norm, depth)
        check(found, expected(key_sets, prefix_BK, logits_BKV, score_BK, norm), on_host, count)
        going_BC = found.score_BC.masked_fill(found.token_BC == EOS, NOWHERE)
        score_BK, chosen_BK = going_BC.topk(min(beams, count))
        state_BK = on_host.follow(state_BK, found, chosen_BK).masked_fill(score_BK == NOWHERE, -1)
        beam_BK, token_BK = (
            found.beam_BC.gather(1, chosen_BK).tolist(),
            found.token_BC.gather(1, chosen_BK).tolist(),
        )
        prefix_BK = [
            [(*prefix_BK[row][b], t) if s >= 0 else None for b, t, s in zip(*parts, strict=True)]
            for row, parts in enumerate(zip(beam_BK, token_BK, state_BK.tolist(), strict=True))
        ]
        assert torch.equal(state_BK, states_of(on_host, prefix_BK))
