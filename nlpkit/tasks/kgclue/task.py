"""Questions on a knowledge base: the question is read, the key of a triple is written, its objects
are the answer.

    [CLS] 云 泽 有 多 大 ？ [SEP] 云 泽 [SEP] 面 积 [SEP] 湖 泊 [CLS]       see `nlpkit.layers.prefix_lm`

    in   {"question": "云泽有多大？", "answer": "云泽（湖泊） ||| 面积 ||| 30平方千米"}
    out  {..., "prediction": {"subject": "云泽", "meaning": "湖泊", "predicate": "面积",
          "objects": ["30平方千米"], "score": 12.3, "beams": [{"subject": ..., "meaning": ...,
          "predicate": ..., "objects": [...], "score": ...}]}}

The knowledge base (`kb`, `--kb`) is a file of triples, or the `.trie` made of one. The model writes
nothing but its keys (`knowledge_base`); how much of the question a key covers counts too
(`lookahead`, also for what `score` is). A run keeps the path of its knowledge base and the sha256
of its content, not a copy. Where the question names the subject of none of the keys found, there is
no answer: all is empty (see `guess`).

The predicates that will be asked for are not those of the training data. So the model is not to
learn which of them are frequent: see the module `logit_adjustment`; the setting of that name is its
strength.

Source: https://kexue.fm/archives/8802 and github.com/bojone/KgCLUE-bert4keras; published Score
0.9012 on the validation set with RoFormer-Sim and the benchmark's 20 million triples. Differs from
it: a key ends wherever the knowledge base has one, also where another goes on (there it could never
be written), with [CLS]; `logit_adjustment = 0`, `look_ahead = "power"` and `guess = true` undo the
rest.
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
from nlpkit.decoding.search import beam_search
from nlpkit.decoding.trie.token_trie import TokenTrie
from nlpkit.errors import RecordError, SettingsError
from nlpkit.formats.finding import Finding
from nlpkit.formats.typed import read_json
from nlpkit.jsonl import dumps, write_atomic
from nlpkit.layers.cached_decoder import CachedDecoder
from nlpkit.tasks.kgclue.answers import Prediction, parse_prediction, read_gold, score_answers
from nlpkit.tasks.kgclue.batch import Batch, Example, Model, collate
from nlpkit.tasks.kgclue.knowledge_base import (
    KnowledgeBase,
    Name,
    compile_triples,
    file_hash,
    key_tokens,
    read_triples,
)
from nlpkit.tasks.kgclue.logit_adjustment import LogitAdjustment
from nlpkit.tasks.kgclue.search import Tables, constraint_of, decided_by, is_named, prediction_of
from nlpkit.tasks.kgclue.token_worth import CharacterCounts, token_worths
from nlpkit.text.tokenizer import Tokenizer

COUNTS = "predicates.json"
CHARACTERS = "characters.json"


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
    coverage: Weight = 32.0
    """With `sum`: what a covered token adds that no training question has, in nats."""
    worth: Literal["idf", "equal"] = "idf"
    """With `sum`: whether a token adds the less the more training questions have it, or all the
    same, as always where a run has not counted its questions' characters."""
    logit_adjustment: Weight = 1.0
    """How far frequent predicates of the training data lose their lead: 0 not at all, 1 wholly."""
    guess: bool = False
    """Whether a key whose subject is not named in the question may be the answer."""
    beam_size: Size = 3
    """Of the search; all of them are listed."""
    max_question: Length = 64
    """Longer questions are cut to overlapping windows of so many tokens; the key with the best
    score counts."""


class Task(task.Writes, task.KnowledgeBase, task.Task[Example, Batch, Prediction]):
    """See the module docstring."""

    Config = Settings
    monitor = "score"
    group = "predicate"
    parse = staticmethod(parse_prediction)

    @classmethod
    def prepare(
        cls, config: Settings, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> Settings:
        """Counts the predicates and the characters of questions, and notes which knowledge base it
        is."""
        kb = cls.required_kb(config, "kgclue", "triples.tsv")
        counts: Counter[str] = Counter()
        questions = []
        for where, record in records:
            try:
                gold = read_gold(record)
            except RecordError as error:
                raise error.at(where) from None
            counts.update([gold.predicate] if gold else [])
            questions.append(str(record.get("question", "")))
        for name, value in (COUNTS, counts), (CHARACTERS, CharacterCounts.of(questions)):
            with write_atomic(folder / name) as stream:
                stream.write(dumps(value) + b"\n")
        return replace(config, kb=str(Path(kb).resolve()), kb_sha256=file_hash(kb))

    def __init__(self, config: Settings, tokenizer: Tokenizer, folder: Path | None):
        self.config = config
        self.tokenizer = tokenizer
        file = folder / COUNTS if folder else None
        counts = read_json(dict[str, int], file) if file and file.exists() else {}
        predicates = []
        for predicate, count in counts.items():
            predicates.append(((*tokenizer.token_ids(predicate), tokenizer.sep_id), count))
        self._adjustment = LogitAdjustment(predicates, config.logit_adjustment)
        self._worth_V: torch.Tensor | None = None
        file = folder / CHARACTERS if folder else None
        if config.worth == "idf" and file and file.exists():  # older runs have none
            characters = read_json(CharacterCounts, file)
            self._worth_V = token_worths(characters, tokenizer)
        self._tables: Tables | None = None
        if folder is not None and config.kb:
            self._tables = Tables(KnowledgeBase.open(config.kb, tokenizer, config.kb_sha256))

    @classmethod
    def build_trie(cls, path: str, tokenizer: Tokenizer) -> TokenTrie:
        """Its keys are those that the task writes, their values the triples."""
        return compile_triples(read_triples(path), tokenizer)

    @property
    def kb(self) -> KnowledgeBase:
        """The knowledge base of the settings. Raises SettingsError where there is none, as in a
        task without a folder, which can only read and score."""
        return self._known_tables.kb

    @property
    def _known_tables(self) -> Tables:
        if self._tables is None:
            self.required_kb(self.config, "kgclue", "triples.tsv")
            raise SettingsError("kgclue: a task without a folder reads and scores alone")
        return self._tables

    def read(self, record: dict[str, Any]) -> Example:
        """`question` and, where there is gold, `answer`.

        Raises RecordError for a field of another form.
        """
        question = record.get("question")
        gold = read_gold(record)
        if not isinstance(question, str):
            got = "none" if question is None else type(question).__name__
            raise RecordError(f'field "question": expected a string, got {got}')
        target = None
        if gold:
            name = Name(gold.subject, gold.meaning)
            target = tuple(key_tokens(name, gold.predicate, self.tokenizer))
        return Example(self.tokenizer.encode(question), gold, target)

    def windows(self, example: Example) -> list[Example]:
        """Overlapping windows of a long question; one that does not name the subject learns
        nothing."""
        encodings = self.tokenizer.windows(example.encoding, self.config.max_question)
        if len(encodings) == 1:
            return [example]
        gold = example.gold
        bases = Name.bases(Name(gold.subject, gold.meaning).text) if gold else []
        windows = []
        for encoding in encodings:
            names_subject = any(is_named(base, encoding, self.tokenizer) for base in bases)
            target = example.target if names_subject else None
            windows.append(replace(example, encoding=encoding, target=target))
        return windows

    def merge(self, example: Example, predictions: Sequence[Prediction]) -> Prediction:
        """The best answer of all windows."""
        return max(predictions, key=lambda p: float("-inf") if p.score is None else p.score)

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """Pads questions, and with targets also questions with their keys."""
        return collate(examples, self.tokenizer, self._adjustment, targets)

    def build_model(self, encoder: nn.Module) -> Model:
        """The encoder as it is."""
        return Model(encoder)

    def beams_and_steps(self, example: Example) -> tuple[int, int]:
        """See `task.Writes`: keys are at most as long as the longest."""
        return self.config.beam_size, self.kb.trie.depth

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """The beams of every question as answers, the best first."""
        tables = self._known_tables
        table = tables.on(batch.sources.token_ids_BT.device)
        questions = [example.encoding for example in batch.examples]
        look_ahead = self.config.look_ahead
        constraint = constraint_of(
            table,
            questions,
            self.tokenizer.sep_id,
            self.config.coverage if look_ahead == "sum" else None,
            look_ahead == "power",
            self._worth_V,
        )
        decoder = CachedDecoder(model.encoder, batch.sources)
        beam_size = self.config.beam_size
        found = beam_search(
            decoder,
            constraint,
            len(questions),
            beam_size,
            table.depth,
            norm="renorm",
            is_decided=decided_by(constraint),
        )
        predictions = []
        for question, states, scores in zip(
            questions, found.state_BK.tolist(), found.score_BK.tolist(), strict=True
        ):
            ends = [
                (state, score) for state, score in zip(states, scores, strict=True) if state >= 0
            ]
            predictions.append(prediction_of(question, ends, tables.kb, self.config.guess))
        return predictions

    def facts(self, prediction: Prediction) -> dict[Any, str]:
        """The triple with the first object, under its predicate."""
        return {prediction.triple: prediction.predicate} if prediction.objects else {}

    def score(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
        """See `answers`."""
        return score_answers(pairs)

    def report(self, example: Example) -> Iterator[Finding]:
        """Gold that the knowledge base does not have, and questions cut to windows."""
        gold = example.gold
        if gold and self._tables is not None:
            found = self.kb.find(Name(gold.subject, gold.meaning), gold.predicate)
            if gold.triple not in found:
                known = f"of these it has {[triple.object for triple in found]}"
                told = f"{gold.triple} is not in the knowledge base"
                told = f"{told}, {known if found else 'nor another object'}"
                yield Finding("unknown triple", told, gold.triple)
        if len(self.windows(example)) > 1:
            told = f"{len(example.encoding)} tokens, {self.config.max_question} fit"
            yield Finding("cut to windows", told)
