"""Questions on a knowledge base: the question is read, the key of a triple is written, its objects
are the answer.

    [CLS] 云 泽 有 多 大 ？ [SEP] 云 泽 [SEP] 面 积 [SEP] 湖 泊 [CLS]       see `nlpkit.layers.prefix_lm`

    in   {"question": "云泽有多大？", "answer": "云泽（湖泊） ||| 面积 ||| 30平方千米"}
    out  {..., "prediction": {"subject": "云泽", "meaning": "湖泊", "predicate": "面积", "objects": ["30平方千米"],
          "score": 12.3, "beams": [{"subject": ..., "meaning": ..., "predicate": ..., "objects": [...], "score": ...}]}}

The knowledge base (`kb`, `--kb`) is a file of triples, or the `.trie` made of one. The model writes
nothing but its keys (`knowledge_base`); how much of the question a key covers counts too
(`lookahead`, also for what `score` is). A run keeps the path of its knowledge base and the sha256
of its content, not a copy. Where the question names the subject of none of the keys found, there is
no answer: all is empty (see `guess`).

The predicates that will be asked for are not those of the training data. So the model is not to
learn which of them are frequent: see `logit_adjustment`, which `balance` is the strength of.

Source: https://kexue.fm/archives/8802 and github.com/bojone/KgCLUE-bert4keras; published Score
0.9012 on the validation set with RoFormer-Sim and the benchmark's 20 million triples. Differs from
it: a key ends wherever the knowledge base has one, also where another goes on (there it could never
be written), with [CLS]; `balance = 0`, `look_ahead = "power"` and `guess = true` undo the rest.
Legend: B batch, N targets of all rows, V vocabulary, I adjusted logits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from nlpkit import task
from nlpkit.config import Length, Size, Weight
from nlpkit.decoding.constraint import Constraint
from nlpkit.decoding.search import beam_search
from nlpkit.decoding.trie.table import TrieTable
from nlpkit.decoding.trie.token_trie import TokenTrie
from nlpkit.errors import RecordError
from nlpkit.formats.finding import Finding
from nlpkit.formats.typed import read_json
from nlpkit.jsonl import dumps, write_atomic
from nlpkit.layers.prefix_lm import (
    CachedDecoder,
    Pair,
    PrefixLM,
    Seq2SeqBatch,
    collate_pairs,
    collate_sources,
)
from nlpkit.tasks.kgclue.answers import (
    Answer,
    Prediction,
    parse_prediction,
    read_gold,
    score_answers,
)
from nlpkit.tasks.kgclue.knowledge_base import (
    KnowledgeBase,
    Name,
    Triple,
    compile_triples,
    file_hash,
    key_tokens,
    read_triples,
)
from nlpkit.tasks.kgclue.logit_adjustment import Adjustment, Balance
from nlpkit.tasks.kgclue.lookahead import LookAhead
from nlpkit.text.tokenizer import Encoding, Tokenizer

COUNTS = "predicates.json"


@dataclass(frozen=True)
class Settings:
    """Settings, section `kgclue`."""

    kb: str = ""
    """The knowledge base: subject, predicate and object of a triple in a line, tabs between; or a
    `.trie` of it."""
    kb_sha256: str | None = None
    """Of the knowledge base's content, noted by training; none: any content will do."""
    look_ahead: Literal["sum", "power", "off"] = "sum"
    """How coverage of the question counts: added to the score of a key, as published, or not at
    all."""
    coverage: Weight = 16.0
    """With `sum`: what a covered token adds, in nats."""
    balance: Weight = 1.0
    """How far frequent predicates of the training data lose their lead: 0 not at all, 1 wholly."""
    guess: bool = False
    """Whether a key whose subject is not named in the question may be the answer."""
    beams: Size = 3
    """Of the search; all of them are listed."""
    max_question: Length = 64
    """Longer questions are cut to overlapping windows of so many tokens; the key with the best
    score counts."""


@dataclass(frozen=True)
class Example:
    """A question, and the tokens of the key that answers it; none where a window does not name its
    subject."""

    encoding: Encoding
    gold: Prediction | None
    target: tuple[int, ...] | None

    def __len__(self) -> int:
        return len(self.encoding) + len(self.target or ())


@dataclass(frozen=True)
class Batch(Seq2SeqBatch[Example]):
    """Questions with their keys, and which logits are adjusted in the loss, by how much."""

    target_I: torch.Tensor
    token_I: torch.Tensor
    value_I: torch.Tensor


class Model(PrefixLM):
    """An encoder with its masked-LM head."""

    # its logits are adjusted
    def forward(self, batch: Batch) -> torch.Tensor:  # type: ignore[override]
        """The loss of every question, the sum over the tokens of its key and the end: (B,)."""
        pairs = batch.pairs
        assert pairs is not None
        logits_NV = self.logits(pairs).float()
        logits_NV = logits_NV.index_put(
            (batch.target_I, batch.token_I), batch.value_I, accumulate=True
        )
        loss_N = nn.functional.cross_entropy(logits_NV, pairs.targets_N, reduction="none")
        row_N = pairs.places_N // pairs.tokens.token_ids_BT.shape[1]
        return loss_N.new_zeros(len(pairs.count_B)).index_add(0, row_N, loss_N)


class Task(task.KnowledgeBase, task.Task[Example, Batch, Prediction]):
    """See the module docstring."""

    Config = Settings
    monitor = "score"
    group = "predicate"
    parse = staticmethod(parse_prediction)

    @classmethod
    def needs_head(cls, config: Settings) -> bool:
        """Yes: it writes."""
        return True

    @classmethod
    def prepare(
        cls, config: Settings, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> Settings:
        """Counts the predicates, and notes which knowledge base it is."""
        kb = cls.required_kb(config, "kgclue", "triples.tsv")
        counts: Counter[str] = Counter()
        for where, record in records:
            try:
                gold = read_gold(record)
            except RecordError as error:
                raise error.at(where) from None
            counts.update([gold.predicate] if gold else [])
        with write_atomic(folder / COUNTS) as stream:
            stream.write(dumps(counts) + b"\n")
        return replace(config, kb=str(Path(kb).resolve()), kb_sha256=file_hash(kb))

    def __init__(self, config: Settings, tokenizer: Tokenizer, folder: Path | None):
        self.config = config
        self.tokenizer = tokenizer
        self._opened: tuple[str, KnowledgeBase] | None = None
        self._table: TrieTable | None = None
        file = folder / COUNTS if folder else None
        counts = read_json(dict[str, int], file) if file and file.exists() else {}
        predicates = [
            ((*tokenizer.token_ids(text), tokenizer.sep_id), count)
            for text, count in counts.items()
        ]
        self._balance = Balance(predicates, config.balance)

    @classmethod
    def build_trie(cls, path: str, tokenizer: Tokenizer) -> TokenTrie:
        """Its keys are those that the task writes, their values the triples."""
        return compile_triples(read_triples(path), tokenizer)

    @property
    def kb(self) -> KnowledgeBase:
        """The knowledge base of the settings, opened when it is first asked for."""
        path = self.required_kb(self.config, "kgclue", "triples.tsv")
        if self._opened is None or self._opened[0] != path:
            self._opened, self._table = (
                (path, KnowledgeBase.open(path, self.tokenizer, self.config.kb_sha256)),
                None,
            )
        return self._opened[1]

    def read(self, record: dict[str, Any]) -> Example:
        """`question` and, where there is gold, `answer`."""
        question, gold = record.get("question"), read_gold(record)
        if not isinstance(question, str):
            got = "none" if question is None else type(question).__name__
            raise RecordError(f'field "question": expected a string, got {got}')
        target = None
        if gold:
            target = tuple(
                key_tokens(Name(gold.subject, gold.meaning), gold.predicate, self.tokenizer)
            )
        return Example(self.tokenizer.encode(question), gold, target)

    def windows(self, example: Example) -> list[Example]:
        """Overlapping windows of a long question; one that does not name the subject learns
        nothing."""
        pieces = self.tokenizer.windows(example.encoding, self.config.max_question)
        if len(pieces) == 1:
            return [example]
        target = example.target
        subject = target[: target.index(self.tokenizer.sep_id)] if target else ()
        return [
            replace(
                example,
                encoding=piece,
                target=target if _contains(_tokens(piece), subject) else None,
            )
            for piece in pieces
        ]

    def merge(self, example: Example, predictions: Sequence[Prediction]) -> Prediction:
        """The best answer of all windows."""
        return max(predictions, key=lambda p: float("-inf") if p.score is None else p.score)

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """Pads questions, and with targets also questions with their keys."""
        sources = [_tokens(example.encoding) for example in examples]
        pairs, adjusted = None, []
        if targets:
            given = [
                Pair(source, example.target)
                for source, example in zip(sources, examples, strict=True)
            ]
            pairs = collate_pairs(given, self.tokenizer, self.tokenizer.cls_id)
            adjusted = list(self._adjusted(examples))
        target_I, token_I, value_I = zip(*adjusted, strict=True) if adjusted else ((), (), ())
        return Batch(
            list(examples),
            collate_sources(sources, self.tokenizer),
            pairs,
            torch.tensor(target_I, dtype=torch.int64),
            torch.tensor(token_I, dtype=torch.int64),
            torch.tensor(value_I, dtype=torch.float32),
        )

    def _adjusted(self, examples: Sequence[Example]) -> Iterator[Adjustment]:
        """The adjustments of all targets; places are those of the batch."""
        first, sep_id = 0, self.tokenizer.sep_id
        for target in (example.target for example in examples if example.target is not None):
            start = target.index(sep_id) + 1
            found = self._balance.adjustments(target, start, target.index(sep_id, start) + 1)
            yield from ((first + place, token, added) for place, token, added in found)
            first += len(target) + 1

    def build_model(self, encoder: nn.Module) -> Model:
        """The encoder as it is."""
        return Model(encoder)

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """The beams of every question as answers, the best first."""
        decoder, rows, depth = (
            CachedDecoder(model.encoder, batch.sources),
            len(batch.examples),
            self.kb.trie.depth,
        )
        found = beam_search(
            decoder, self._constraint(batch), rows, self.config.beams, depth, norm="renorm"
        )
        beams = zip(batch.examples, found.state_BK.tolist(), found.lists(), strict=True)
        return [self._prediction(*row) for row in beams]

    def _constraint(self, batch: Batch) -> Constraint:
        kb, device = self.kb, batch.sources.token_ids_BT.device
        if self._table is None or self._table.head.device != device:
            self._table = TrieTable.of(kb.trie, self.tokenizer.cls_id, device)
        if self.config.look_ahead == "off":
            return self._table
        weight = self.config.coverage if self.config.look_ahead == "sum" else None
        return LookAhead(
            self._table,
            [_tokens(e.encoding) for e in batch.examples],
            self.tokenizer.sep_id,
            weight,
        )

    def _prediction(
        self, example: Example, states: list[int], found: list[tuple[list[int], float]]
    ) -> Prediction:
        question = _tokens(example.encoding)
        answers = []
        for state, (tokens, score) in zip(states, found, strict=False):
            if self.config.guess or _contains(
                question, tokens[: tokens.index(self.tokenizer.sep_id)]
            ):
                triples = self.kb.triples(int(self.kb.trie.levels.lo[state]))
                answers.append(_answer(triples, example.encoding.text, round(score, 4)))
        best = answers[0] if answers else Answer("", "", "", [])
        return Prediction(**vars(best), beams=answers)

    def facts(self, prediction: Prediction) -> dict[Any, str]:
        """The triple with the first object, under its predicate."""
        return {prediction.triple: prediction.predicate} if prediction.objects else {}

    def score(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
        """See `answers`."""
        return score_answers(pairs)

    def report(self, example: Example) -> Iterator[Finding]:
        """Gold that the knowledge base does not have, and questions cut to windows."""
        gold = example.gold
        if gold and self.config.kb:
            found = self.kb.find(Name(gold.subject, gold.meaning), gold.predicate)
            if gold.triple not in found:
                known = (
                    f"of these it has {[triple.object for triple in found]}"
                    if found
                    else "nor another object"
                )
                yield Finding(
                    "unknown triple",
                    f"{gold.triple} is not in the knowledge base, {known}",
                    gold.triple,
                )
        if len(self.windows(example)) > 1:
            yield Finding(
                "cut to windows", f"{len(example.encoding)} tokens, {self.config.max_question} fit"
            )


def _answer(triples: list[Triple], question: str, score: float) -> Answer:
    """Of the triples of a key, which its tokens may not tell apart, those of one subject and
    predicate.

    They are the first ones whose subject stands in the question as it is written, else the first.
    """
    groups: dict[tuple[str, str], list[Triple]] = {}
    for triple in triples:
        groups.setdefault(triple[:2], []).append(triple)
    subject, predicate = max(groups, key=lambda group: Name.of(group[0]).base in question)
    objects = [triple.object for triple in groups[subject, predicate]]
    return Answer(*Name.of(subject), predicate, objects, score)


def _tokens(encoding: Encoding) -> list[int]:
    """Without [CLS] and [SEP]."""
    return encoding.token_ids_T[1:-1].tolist()


def _contains(tokens: list[int], part: Sequence[int]) -> bool:
    """Whether the part stands in one piece somewhere in the tokens."""
    return any(
        tokens[start : start + len(part)] == list(part)
        for start in range(len(tokens) - len(part) + 1)
    )
