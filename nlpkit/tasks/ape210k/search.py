"""The best equations of problems: what the search may write, and in which numbering.

An equation has few different tokens: symbols, marks and the end. So the model scores these alone,
by their numbers in this alphabet, and a token by its probability among the legal ones. A score does
not tell how likely the model would write another token than these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nlpkit.decoding.per_position import Free
from nlpkit.decoding.search import beam_search
from nlpkit.layers.cached_decoder import CachedDecoder
from nlpkit.tasks.ape210k.constraint import EquationConstraint
from nlpkit.tasks.ape210k.numbers import NumberTokens
from nlpkit.text.tokenizer import TokenBatch

Found = list[list[tuple[list[int], float]]]
"""(token ids, score) of the best sequences of each problem, best first; scores in nats."""


def any_tokens(
    encoder: Any, sources: TokenBatch, end_id: int, beam_size: int, longest: int
) -> Found:
    """The best sequences of any tokens, at most `longest` without the end, scored among all."""
    device = sources.token_ids_BT.device
    constraint = Free(encoder.vocabulary_size, end_id, device=device)
    decoder = CachedDecoder(encoder, sources)
    rows = len(sources.token_ids_BT)
    return beam_search(decoder, constraint, rows, beam_size, longest).lists()


def equations(
    encoder: Any,
    sources: TokenBatch,
    problems: Sequence[Sequence[int]],
    tokens: NumberTokens,
    beam_size: int,
    longest: int,
) -> Found:
    """The best arithmetic over the numbers of each problem, at most `longest` tokens without the
    end. `problems` are the token ids of each, with its marks."""
    alphabet = [*tokens.symbols.values(), *tokens.marks.values(), tokens.tokenizer.sep_id]
    number_of = {token: number for number, token in enumerate(alphabet)}
    operands = []
    for problem in problems:
        operands.append([number_of[mark] for mark in tokens.copies(problem)])
    device = sources.token_ids_BT.device
    constraint = EquationConstraint(
        {symbol: number_of[token] for symbol, token in tokens.symbols.items()},
        number_of[tokens.tokenizer.sep_id],
        operands=operands,
        wholes=[number_of[mark] for mark in tokens.marks.values()],
        max_length=longest,
        device=device,
    )
    decoder = CachedDecoder(encoder, sources, alphabet_V=torch.tensor(alphabet, device=device))
    found = beam_search(decoder, constraint, len(problems), beam_size, longest, norm="renorm")
    written = []
    for beams in found.lists():
        equations_of = []
        for numbers, score in beams:
            equations_of.append(([alphabet[number] for number in numbers], score))
        written.append(equations_of)
    return written
