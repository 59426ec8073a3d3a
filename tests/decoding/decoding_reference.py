"""References for the tests of decoding, in plain Python and float64: a model, a trie, brute force,
beam search."""

from __future__ import annotations

import math

import torch

from nlpkit.decoding.constraint import Candidates

V, EOS = 6, 5  # tokens 0 to 4, and the end


class TinyModel:
    """A recurrent model with random weights; every row starts from another state."""

    def __init__(self, rows: int, seed: int = 0, vocabulary: int = V, first_row: int = 0):
        self.seeds = [seed * 1000 + first_row + row for row in range(rows)]
        draw = torch.Generator().manual_seed(seed)
        self.embed_VH = torch.randn(vocabulary, 4, generator=draw)
        self.out_HV = 2 * torch.randn(4, vocabulary, generator=draw)
        starts = [torch.randn(1, 4, generator=torch.Generator().manual_seed(s)) for s in self.seeds]
        self.start_B1H = torch.stack(starts)
        self.steps = 0

    def first(self):
        self.state_BKH = self.start_B1H
        return (self.state_BKH @ self.out_HV)[:, 0]

    def next(self, token_BK, beam_BK):
        self.steps += 1
        old_BKH = torch.stack(
            [state_KH[beam_K] for state_KH, beam_K in zip(self.state_BKH, beam_BK, strict=True)]
        )
        self.state_BKH = torch.tanh(0.5 * old_BKH + self.embed_VH[token_BK])
        return self.state_BKH @ self.out_HV

    def log_probs(self, row, prefix, legal=None):
        """log p of every token after a prefix, among all or among the legal ones."""
        state_H = self.start_B1H[row, 0].double()
        for token in prefix:
            state_H = torch.tanh(0.5 * state_H + self.embed_VH[token].double())
        logits_V = state_H @ self.out_HV.double()
        among = logits_V if legal is None else logits_V[sorted(legal)]
        return (logits_V - among.logsumexp(0)).tolist()


def next_of(sequences):
    """legal(prefix) -> tokens that may follow, EOS among them where a sequence ends."""
    follow = {}
    for sequence in sequences:
        for cut in range(len(sequence) + 1):
            follow.setdefault(tuple(sequence[:cut]), set()).add((*sequence, EOS)[cut])
    return lambda prefix: follow.get(tuple(prefix), set())


class DictTrie:
    """`Constraint` over the sequences of every row, by loops; the state is the number of a
    beginning."""

    eos_id = EOS

    def __init__(self, rows):
        self.legal = [next_of(sequences) for sequences in rows]
        beginnings = {
            tuple(s[:cut]) for sequences in rows for s in sequences for cut in range(len(s) + 1)
        } | {()}
        self.beginnings = sorted(beginnings)
        self.number = {beginning: number for number, beginning in enumerate(self.beginnings)}

    def start(self, rows):
        return torch.full((rows, 1), self.number[()])

    def step(self, logits_BKV, score_BK, state_BK, count, norm="full", depth=None):
        given = zip(
            self.legal, logits_BKV.double(), score_BK.tolist(), state_BK.tolist(), strict=True
        )
        found = [option for row in given for option in self._row(*row, count, norm)]
        return Candidates(
            *(torch.tensor(column).view(-1, count) for column in zip(*found, strict=True))
        )

    def _row(self, legal, logits_KV, score_K, state_K, count, norm):
        found = []
        for beam, (logits_V, score, state) in enumerate(
            zip(logits_KV, score_K, state_K, strict=True)
        ):
            if score == -math.inf:
                continue
            beginning = self.beginnings[state]
            tokens = sorted(t for t in legal(beginning) if logits_V[t] > -math.inf)
            total = logits_V.logsumexp(0) if norm == "full" else logits_V[tokens].logsumexp(0)
            for token in tokens:
                after = state if token == EOS else self.number[(*beginning, token)]
                found.append((score + float(logits_V[token] - total), beam, token, after))
        found.sort(reverse=True)
        return (found + [(-math.inf, 0, -1, -1)] * count)[:count]

    def follow(self, state_BK, candidates, chosen_BK):
        return candidates.state_BC.gather(1, chosen_BK)


def continuations(model, row, legal, prefix, max_length, norm):
    """{token: log p} of what may follow; at `max_length` an end alone."""
    tokens = legal(prefix)
    if len(prefix) == max_length:
        tokens = tokens & {EOS}
    log_probs = model.log_probs(row, prefix, tokens if norm == "renorm" and tokens else None)
    return {token: log_probs[token] for token in tokens}


def every_sequence(model, row, legal, max_length, norm="full", normalised=False):
    """{sequence: score} by looking at all of them."""
    found, stack = {}, [((), 0.0)]
    while stack:
        prefix, score = stack.pop()
        for token, log_p in continuations(model, row, legal, prefix, max_length, norm).items():
            if token == EOS:
                found[prefix] = (score + log_p) / (len(prefix) + 1 if normalised else 1)
            else:
                stack.append(((*prefix, token), score + log_p))
    return found


def plain_beam_search(model, row, legal, beams, max_length, norm="full", normalised=False):
    """[(sequence, score)], without any early stop."""
    found, running = [], [((), 0.0)]
    for _ in range(max_length + 1):
        options = [
            ((*prefix, token), score + log_p)
            for prefix, score in running
            for token, log_p in continuations(model, row, legal, prefix, max_length, norm).items()
        ]
        options = sorted(options, key=lambda option: -option[1])[: 2 * beams]
        for sequence, score in options[:beams]:
            if sequence[-1] == EOS:
                found.append((sequence[:-1], score / (len(sequence) if normalised else 1)))
        running = [option for option in options if option[0][-1] != EOS][:beams]
    return sorted(found, key=lambda option: -option[1])[:beams]


def assert_same(found, expected, within=1e-4):
    """Two lists of (sequence, score), best first, are equal, up to which of equally bad ones come
    last."""
    assert len(found) == len(expected)
    assert all(abs(a - b) < within for (_, a), (_, b) in zip(found, expected, strict=True))
    known = {tuple(sequence) for sequence, _ in expected}
    assert all(
        tuple(sequence) in known for sequence, score in found if score > expected[-1][1] + within
    )
