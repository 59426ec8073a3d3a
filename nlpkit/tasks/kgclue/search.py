"""From beams to answers: which keys of a knowledge base are searched, and which of the triples of a
key answer the question.

Strings of the same tokens share a key: they differ in letter case, or in characters that the
vocabulary lacks, which are all [UNK]. So in a search an unknown character may be any other. Which
one it is the text tells: a question names a subject where the tokens of the subject stand in it in
one piece, and its unknown characters are the same there, by their text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import torch

from nlpkit.decoding.constraint import Constraint
from nlpkit.decoding.trie.one_key import has_one_key
from nlpkit.decoding.trie.table import TrieTable
from nlpkit.tasks.kgclue.answers import Answer, Prediction
from nlpkit.tasks.kgclue.batch import question_tokens
from nlpkit.tasks.kgclue.knowledge_base import KnowledgeBase, Name, Triple
from nlpkit.tasks.kgclue.lookahead import LookAhead
from nlpkit.text.tokenizer import Encoding, Tokenizer


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of one knowledge base, one for each device that asks; safe for several threads."""

    kb: KnowledgeBase
    _made: dict[torch.device, TrieTable] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def on(self, device: torch.device) -> TrieTable:
        """The table on a device: made at the first call, the same one afterwards."""
        with self._lock:
            if device not in self._made:
                end_id = self.kb.tokenizer.cls_id
                # elsewhere nothing is left out, and so nothing asks for keys
                on_cpu = device.type == "cpu"
                table = TrieTable.of(self.kb.trie, end_id, device, key_ranges=on_cpu)
                self._made[device] = table
            return self._made[device]


def constraint_of(
    table: TrieTable,
    questions: Sequence[Encoding],
    sep_id: int,
    weight: float | None,
    power: bool,
    worth_V: torch.Tensor | None = None,
) -> Constraint:
    """The keys of a table, with look-ahead for each question: `sum` by a `weight`, or `power`, or
    none where there is neither; `worth_V` is for `sum`, see `LookAhead`."""
    if weight is None and not power:
        return table
    worth_V = None if power else worth_V
    return LookAhead(table, [question_tokens(q) for q in questions], sep_id, weight, worth_V)


def decided_by(constraint: Constraint) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """`is_decided` of `beam_search` with "renorm" under such a constraint: where one key is left, a
    token is certain among the legal ones, so that the model need not be asked. With `sum` that is
    so in the meaning alone. None where the table was made without keys."""
    look_ahead = constraint if isinstance(constraint, LookAhead) else None
    table: Any = constraint if look_ahead is None else look_ahead.table
    if table.first_key is None:
        return None

    def is_decided(state: torch.Tensor) -> torch.Tensor:
        node_BK = state if look_ahead is None else state[..., 0]
        is_decided_BK = has_one_key(table, node_BK.flatten()).view(node_BK.shape)
        if look_ahead is None or look_ahead.weight is None:
            return is_decided_BK
        return is_decided_BK & (state[..., 1] > 1)

    return is_decided


def prediction_of(
    question: Encoding,
    found: Sequence[tuple[int, float]],
    kb: KnowledgeBase,
    guess: bool,
) -> Prediction:
    """The answers of (state of the end, score) pairs, best first, and the first of them as the
    best.

    An answer whose subject the question does not name is left out, unless `guess` says that it
    counts. Where none is left, all is empty.
    """
    answers = []
    for state, score in found:
        triples = kb.triples(int(kb.trie.csr.first_key[state]))
        answer = answer_of(triples, question, kb.tokenizer, guess, round(score, 4))
        if answer is not None:
            answers.append(answer)
    best = answers[0] if answers else Answer("", "", "", [])
    return Prediction(**vars(best), beams=answers)


def answer_of(
    triples: Sequence[Triple], question: Encoding, tokenizer: Tokenizer, guess: bool, score: float
) -> Answer | None:
    """Of the triples of a key those of one subject and predicate, None where the question names no
    subject of them and guessing is not wanted.

    It is the first subject that stands in the question as it is written, else the first that is
    named, else the first.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for triple in triples:
        groups.setdefault((triple.subject, triple.predicate), []).append(triple.object)
    bases = {subject: Name.bases(subject) for subject, _ in groups}
    named = []
    for group in groups:
        if any(is_named(base, question, tokenizer) for base in bases[group[0]]):
            named.append(group)
    if not named and not guess:
        return None
    written = []
    for group in named:
        if any(base in question.text for base in bases[group[0]]):
            written.append(group)
    choices = written or named or list(groups)
    subject, predicate = max(choices, key=lambda group: group[1] in question.text)
    name = Name.of(subject)
    return Answer(name.base, name.meaning, predicate, groups[subject, predicate], score)


def is_named(string: str, question: Encoding, tokenizer: Tokenizer) -> bool:
    """Whether the tokens of a string stand in the question in one piece. An unknown character
    equals only itself."""
    part = _told_apart(tokenizer.encode(string), tokenizer.unk_id)
    whole = _told_apart(question, tokenizer.unk_id)
    places = range(len(whole) - len(part) + 1)
    return any(whole[place : place + len(part)] == part for place in places)


def _told_apart(encoding: Encoding, unk_id: int) -> list[int | str]:
    """The token ids without [CLS] and [SEP]; the text in the place of an unknown one."""
    told: list[int | str] = []
    for place, token in enumerate(question_tokens(encoding), 1):
        if token == unk_id:
            start, end = encoding.char_span((place, place + 1))
            told.append(encoding.text[start:end].casefold())
        else:
            told.append(token)
    return told
