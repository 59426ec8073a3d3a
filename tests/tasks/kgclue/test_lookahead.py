"""Look-ahead against a plain reference in float64: the scores of single steps, and the best of all
keys."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.decoding.search import beam_search
from nlpkit.decoding.trie.table import TrieTable
from nlpkit.decoding.trie.token_trie import TokenTrie
from nlpkit.errors import SettingsError
from nlpkit.tasks.kgclue.coverage import Coverage
from nlpkit.tasks.kgclue.lookahead import LookAhead
from nlpkit.tasks.kgclue.search import decided_by

VOCABULARY, END, SEP = 9, 0, 1
WEIGHT = 1.5
TOKEN = st.integers(2, VOCABULARY - 1)
PART = st.lists(TOKEN, min_size=1, max_size=3)
KEYS = st.lists(st.tuples(PART, PART, st.lists(TOKEN, max_size=2)), min_size=1, max_size=14)
QUESTIONS = st.lists(st.lists(TOKEN, max_size=7), min_size=1, max_size=3)


def key_of(parts):
    subject, predicate, meaning = parts
    return (*subject, SEP, *predicate, SEP, *meaning)


WORTH = [random.Random(token).randrange(5) / 4 for token in range(VOCABULARY)]


def one_each(token):
    return 1


def lcs(one, other, worth=one_each):
    """The textbook table."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1][j + 1] = (
                table[i][j] + worth(a) if a == b else max(table[i][j + 1], table[i + 1][j])
            )
    return table[-1][-1]


def logits_of(row, written):
    """A made-up model: logits that depend on all that was written; the last one is of no token of a
    key."""
    seeded = random.Random(f"{row} {written}")
    return [seeded.uniform(-3, 3) for _ in range(VOCABULARY)]


def log_softmax(values):
    total = math.log(sum(math.exp(value) for value in values.values()))
    return {token: value - total for token, value in values.items()}


class Written:
    """`Model` of `logits_of`, which remembers the beams."""

    def __init__(self, rows):
        self.beams = [[()] for _ in range(rows)]

    def first(self):
        return torch.tensor([logits_of(row, ()) for row in range(len(self.beams))])

    def next(self, token_BK, beam_BK):
        new = zip(token_BK.tolist(), beam_BK.tolist(), self.beams, strict=True)
        self.beams = [
            [(*old[b], t) for t, b in zip(tokens, beams, strict=True)] for tokens, beams, old in new
        ]
        return torch.tensor(
            [[logits_of(row, y) for y in beams] for row, beams in enumerate(self.beams)]
        )


def legal_tokens(keys, written):
    """Token -> the keys that go on with it; END where a key ends."""
    found = {}
    for key in keys:
        if key[: len(written)] == written:
            found.setdefault(key[len(written)] if len(key) > len(written) else END, []).append(key)
    return found


def powers(keys, question, row, written, norm):
    """The published step: token -> log p of the legal tokens; with "full" not normalised again."""
    log_p = log_softmax(dict(enumerate(logits_of(row, written))))
    raised = {}
    for token, some in legal_tokens(keys, written).items():
        gains = [max(lcs(key, question) - lcs(written, question), 0) for key in some]
        n = 1 + max(gains) if SEP in written and token != END else 1
        raised[token] = log_p[token] / n
    return log_softmax(raised) if norm == "renorm" else raised


def covered(key, question, worth=one_each):
    """F of a key."""
    subject = key[: key.index(SEP)]
    predicate = key[len(subject) + 1 : key.index(SEP, len(subject) + 1)]
    for start in range(len(question)):
        end = start + len(subject)
        if tuple(question[start:end]) == subject:
            rest = [*question[:start], *question[end:]]
            return sum(map(worth, subject)) + lcs(predicate, rest, worth)
    return 0


def sums(keys, question, row, key, norm="renorm"):
    """The score of a key with `sum`."""
    score = -WEIGHT * (max(covered(other, question) for other in keys) - covered(key, question))
    for place in range(len(key) + 1):
        written, token = key[:place], key[place] if place < len(key) else END
        values = dict(enumerate(logits_of(row, written)))
        if written.count(SEP) > 1 and norm == "renorm":
            values = {legal: values[legal] for legal in legal_tokens(keys, written)}
        score += log_softmax(values)[token]
    return score


def products(keys, question, row, key, norm="renorm"):
    """The score of a key with `power`."""
    return sum(
        powers(keys, question, row, key[:place], norm)[key[place] if place < len(key) else END]
        for place in range(len(key) + 1)
    )


def search(keys, questions, weight, layout="ragged", norm="renorm", beams=40):
    trie = TokenTrie.from_sequences(keys, VOCABULARY)
    constraint = LookAhead(TrieTable.of(trie, END, layout=layout), questions, SEP, weight)
    rows = len(questions)
    return beam_search(Written(rows), constraint, rows, beams, trie.depth, norm=norm).lists()


@pytest.mark.parametrize("layout", ["ragged", "fixed"])
@pytest.mark.parametrize(("weight", "score"), [(WEIGHT, sums), (None, products)])
@settings(max_examples=30)
@given(parts=KEYS, questions=QUESTIONS, norm=st.sampled_from(["renorm", "full"]))
def test_all_keys_are_found_with_the_scores_of_the_formula(
    layout, weight, score, parts, questions, norm
):
    keys = sorted({key_of(part) for part in parts})
    for row, found in enumerate(search(keys, questions, weight, layout, norm)):
        expected = []
        for key in keys:
            expected.append((score(keys, questions[row], row, key, norm), key))
        expected.sort(reverse=True)
        assert sorted(tuple(tokens) for tokens, _ in found) == keys
        assert [s for _, s in found] == pytest.approx([s for s, _ in expected], abs=1e-4)
        assert tuple(found[0][0]) == expected[0][1]


@pytest.mark.parametrize("worths", [None, WORTH])
@settings(max_examples=60)
@given(parts=KEYS, question=st.lists(TOKEN, max_size=8))
def test_the_best_coverage_below_every_node(worths, parts, question):
    worth = one_each if worths is None else worths.__getitem__
    worth_V = None if worths is None else torch.tensor(worths)
    keys = sorted({key_of(part) for part in parts})
    trie = TokenTrie.from_sequences(keys, VOCABULARY)
    coverage = Coverage(TrieTable.of(trie, END), [question], SEP, stop=True, worth_V=worth_V)
    coverage.add_named()
    for key in keys:
        for length in range(key.index(SEP, key.index(SEP) + 1) + 2):
            below = []
            for other in keys:
                if other[:length] == key[:length]:
                    below.append(covered(other, question, worth))
            node = torch.tensor([trie.find(key[:length])])
            assert coverage.best(torch.tensor([0]), node).item() == max(below)


def test_a_key_that_another_goes_on_from_is_found():
    short, long = (2, SEP, 3, SEP), (2, SEP, 3, SEP, 4)
    for weight in (WEIGHT, None):
        assert {tuple(tokens) for tokens, _ in search([short, long], [[2, 3]], weight)[0]} == {
            short,
            long,
        }


def test_rows_do_not_see_one_another():
    keys = [key_of(parts) for parts in [((2, 3), (4,), ()), ((2,), (4, 5), (6,)), ((3,), (5,), ())]]
    questions = [[2, 3, 4], [7], [3, 5, 2, 4, 5]]
    for weight in (WEIGHT, None):
        together = search(keys, questions, weight)
        for row in range(3):
            others = [[8], [8], [8]]
            others[row] = questions[row]
            assert search(keys, others, weight)[row] == together[row]


def test_another_number_of_questions_is_refused():
    table = TrieTable.of(TokenTrie.from_sequences([(2, SEP, 3, SEP)], VOCABULARY), END)
    with pytest.raises(SettingsError, match="expected 2 rows, got 3"):
        LookAhead(table, [[2], [3]], SEP, WEIGHT).start(3)


@pytest.mark.parametrize("weight", [None, WEIGHT])
@given(KEYS, QUESTIONS, st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_where_one_key_is_left_the_model_need_not_be_asked(weight, parts, questions, beams):
    trie = TokenTrie.from_sequences({key_of(part) for part in parts}, VOCABULARY)
    table = TrieTable.of(trie, END, key_ranges=True)
    rows = len(questions)
    listed = []
    for decides in (False, True):
        constraint = LookAhead(table, questions, SEP, weight)
        is_decided = decided_by(constraint) if decides else None
        found = beam_search(
            Written(rows),
            constraint,
            rows,
            beams,
            table.depth,
            norm="renorm",
            is_decided=is_decided,
        )
        listed.append(found.lists())
    for row, expected_row in zip(listed[1], listed[0], strict=True):
        assert [tokens for tokens, _ in row] == [tokens for tokens, _ in expected_row]
        scores = [score for _, score in row]
        assert scores == pytest.approx([score for _, score in expected_row], abs=1e-4)


def test_without_keys_in_the_table_nothing_is_decided():
    table = TrieTable.of(TokenTrie.from_sequences([(2, SEP, 3, SEP)], VOCABULARY), END)
    assert decided_by(table) is None
