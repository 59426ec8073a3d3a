"""No step waits for the device: with tensors that have no values, every look at one raises.

What is done otherwise on a CPU, where a look costs nothing, is replaced by what is done on a
device.
"""

import pytest
import torch
from decoding_reference import EOS, TinyModel, V
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from nlpkit.decoding import best, sampling, search, top_candidates
from nlpkit.decoding.passage import PassageConstraint
from nlpkit.decoding.per_position import Free
from nlpkit.decoding.repetition import NoRepeat
from nlpkit.decoding.trie import table
from nlpkit.decoding.trie.table import TrieTable
from nlpkit.decoding.trie.token_trie import TokenTrie
from nlpkit.tasks.ape210k.constraint import EquationConstraint
from nlpkit.tasks.kgclue import lookahead
from nlpkit.tasks.kgclue.lookahead import LookAhead

KEYS = TokenTrie.from_sequences([(1, 0, 2, 0, 3), (1, 0, 2, 0), (2, 0, 1, 0)], V)
TABLE = TrieTable.of(KEYS, EOS, layout="fixed")
CONSTRAINTS = {
    "trie": TABLE,
    "look-ahead": LookAhead(TABLE, [[1, 2], [2, 3, 1]], separator=0, weight=1.0),
    "free": Free(V, EOS, min_length=2),
    "passage": PassageConstraint([[[1, 2], [3]], [[1, 1, 1]]], EOS),
    "equation": EquationConstraint({"1": 0, "+": 1, "(": 2, ")": 3}, EOS, max_length=6),
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_neither_search_nor_sampling_looks_at_a_value(name, monkeypatch):
    monkeypatch.setattr(search, "all_done", lambda step, score_BK: False)
    monkeypatch.setattr(sampling, "all_done", lambda step, score_BK: False)
    for module in (top_candidates, table, lookahead):
        monkeypatch.setattr(module, "log_totals", lambda logits_NV: logits_NV.float().logsumexp(1))
    monkeypatch.setattr(best, "rows_with_equals", lambda best_BN: torch.zeros(0).long())
    model = NoRepeat(TinyModel(2), 2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        found = search.beam_search(model, CONSTRAINTS[name], 2, 3, 6, length_normalised=True)
        assert found.tokens_BKL.shape == (2, 3, 6)
        drawn = sampling.sample(model, CONSTRAINTS[name], [0, 1], 6, top_p=0.9)
        assert drawn.tokens_BKL.shape == (2, 1, 6)


def test_a_look_would_be_noticed():
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(DataDependentOutputException):
        search.beam_search(TinyModel(2), CONSTRAINTS["free"], 2, 3, 6)
