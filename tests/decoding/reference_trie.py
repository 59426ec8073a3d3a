"""What the tests of tries compare with: sets of tuples, float64, and no cleverness. And the tries they are tried on."""

import numpy as np
import torch
from hypothesis import strategies as st

EOS = 1


@st.composite
def key_lists(draw, vocabulary_size=None):
    """(vocabulary size, keys in any order): short alphabets, so that keys begin alike, are equal, empty or none."""
    size = vocabulary_size or draw(st.sampled_from([4, 9, 32768, 32769, 65536, 70000]))
    alphabet = [0, 2, 3, size - 1, size - 2, *draw(st.lists(st.integers(0, size - 1), max_size=3))]
    key = st.lists(st.sampled_from(alphabet), max_size=draw(st.sampled_from([1, 3, 10]))).map(tuple)
    return size, draw(st.lists(key, max_size=draw(st.sampled_from([1, 4, 30]))))


def continuations(keys, prefix):
    """(token, what follows) of a prefix, its end as (EOS, prefix)."""
    deeper = {key[: len(prefix) + 1] for key in keys if key[: len(prefix)] == prefix and len(key) > len(prefix)}
    return sorted((key[-1], key) for key in deeper) + [(EOS, prefix)] * (prefix in keys)


def expected(keys_B, prefix_BK, logits_BKV, score_BK, norm):
    """For every row its candidates (score, beam, token, prefix), best first."""
    rows = []
    for keys, prefixes, logits_KV, scores in zip(
        keys_B, prefix_BK, logits_BKV.double(), score_BK.double(), strict=True
    ):
        row = []
        for beam, (prefix, logits_V, score) in enumerate(zip(prefixes, logits_KV, scores, strict=True)):
            legal = continuations(keys, prefix) if prefix is not None and score > -np.inf else []
            of_legal = logits_V[[token for token, _ in legal]]
            total = torch.logsumexp(logits_V if norm == "full" else of_legal, 0)
            row += [(float(score + logits_V[token] - total), beam, token, end) for token, end in legal]
        rows.append(sorted(row, reverse=True))
    return rows
