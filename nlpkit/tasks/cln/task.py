r"""Conditional generation: texts of a label, of several attributes, or of a vector, written from
left to right.

    in   {"label": "好评", "text": "送得很快，味道也好"}     "text" to train alone,
         {"label": "好评", "prefix": "送得"}                 "prefix" to go on with,
         {"vector": [0.1, -2.0, ...]}                        or a vector in the place of a label
    out  {..., "prediction": {"texts": ["送得很快，味道也好"], "scores": [-12.3]}}

The condition moves every LayerNorm of the encoder (`nlpkit.layers.conditional_norm`), which reads

    [CLS] [SEP] text [SEP]

where each token sees those before it and predicts the next (`nlpkit.layers.prefix_lm`).

The loss is the sum of -log p over the text's tokens and its end, in nats, as is a score. A text
longer than `max_length` is learned up to its last punctuation before it. Sample k of line n of a
file is drawn by (`seed`, n, k): the same line gives the same texts, whatever stands beside it.

`form` has a poem's lines and punctuation written exactly: what stands where is a mask by position,
and the model chooses among what is left. With `latent` a line needs no label; `"between": ["送得很快",
"再也不来了"]` asks for texts on the way from one to the other. With `categories` too, what a text is
like is some choices, not numbers. Metrics are those of `metrics`.

Source: https://kexue.fm/archives/7124.
Differs from it: /7124 sets no segment and reads no [SEP] before the text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nlpkit import task
from nlpkit.errors import RecordError, SettingsError
from nlpkit.formats.finding import Finding
from nlpkit.formats.typed import read_json
from nlpkit.jsonl import write_atomic
from nlpkit.layers.gumbel import CategoricalLatent
from nlpkit.layers.prefix_lm import Pair, collate_pairs, collate_sources
from nlpkit.layers.vae import Latent
from nlpkit.tasks.cln.conditions import Condition, ConditionSpace, read_condition
from nlpkit.tasks.cln.detokenize import Writing
from nlpkit.tasks.cln.examples import (
    SPECIAL,
    Example,
    begin,
    cut_text,
    difference,
    read_between,
    read_string,
)
from nlpkit.tasks.cln.metrics import (
    Assessed,
    Gold,
    Prediction,
    parse_prediction,
    score_texts,
    with_verdicts,
)
from nlpkit.tasks.cln.model import Batch, Model
from nlpkit.tasks.cln.poem_constraint import Metres
from nlpkit.tasks.cln.poem_forms import form_of
from nlpkit.tasks.cln.settings import Settings
from nlpkit.tasks.cln.writer import Writer
from nlpkit.text.tokenizer import Tokenizer

FILE = "characters.json"


class Task(task.Writes, task.AsksRun, task.Task[Example, Batch, Prediction]):
    """See the module docstring."""

    Config = Settings
    monitor = "likelihood"
    group = "text"
    asked_setting = "cln.classifier"
    asked_task = "classification"
    parse = staticmethod(parse_prediction)

    @classmethod
    def prepare(
        cls, config: Settings, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> Settings:
        """Writes `conditions.json`, and `characters.json`: the characters of the texts and their
        numbers."""
        characters: Counter[str] = Counter()

        def conditions() -> Iterator[tuple[str, Condition]]:
            for where, record in records:
                try:
                    characters.update(read_string(record, "text"))
                    yield where, read_condition(record)
                except RecordError as error:
                    raise error.at(where) from None

        ConditionSpace.find(conditions(), required=config.latent is None).write(folder)
        with write_atomic(folder / FILE) as stream:
            stream.write(
                json.dumps(dict(sorted(characters.items())), ensure_ascii=False).encode() + b"\n"
            )
        return config

    def __init__(self, config: Settings, tokenizer: Tokenizer, folder: Path | None):
        self.config = config
        self.tokenizer = tokenizer
        self.space = ConditionSpace.read(folder) if folder else None
        characters = read_json(dict[str, int], folder / FILE) if folder else {}
        self.metres = Metres(Writing(tokenizer, characters), tokenizer.sep_id)
        self._check_settings()

    def _check_settings(self) -> None:
        """Raises SettingsError for what is wrong whatever the lines are."""
        most = self.config.max_length
        limit = self.tokenizer.max_length
        if limit is not None and most > limit - SPECIAL:
            raise SettingsError(
                f"cln.max_length: expected at most {limit - SPECIAL}, got {most}: "
                f"the encoder takes {limit} tokens, {SPECIAL} of them special"
            )
        form = self._fixed_form
        if len(form) > most:
            raise SettingsError(
                f"cln.form: {len(form)} characters, max_length is {most}",
                hint=f"--set cln.max_length={len(form)}",
            )
        if form:
            self.metres.check(form)

    @property
    def _fixed_form(self) -> str:
        """The form of all lines; empty where there is none, or where each label names its own."""
        if self.config.form == "label":
            return ""
        return form_of(self.config.form) or self.config.form

    def read(self, record: dict[str, Any]) -> Example:
        """`label` or `vector`; to train `text`; where a text is to begin with something,
        `prefix`.

        Raises RecordError for a field of another form, an empty text, a text that does not begin
        with its prefix, or a condition that the run does not know.
        """
        condition = read_condition(record)
        text = read_string(record, "text")
        prefix = read_string(record, "prefix")
        required = self.config.latent is None
        if self.space is not None:
            self.space.check(condition, required)
        elif required and condition == Condition():
            raise RecordError('missing field "label"')
        if record.get("text") is not None and not text.strip():
            raise RecordError('field "text": expected something to learn, got an empty text')
        if text and not text.startswith(prefix):
            raise RecordError(f'field "text": expected it to begin with the prefix "{prefix[:20]}"')
        labels = tuple(condition.labels.values())
        own = next((form for form in map(form_of, labels) if form), "")
        form = own if self.config.form == "label" else self._fixed_form
        encoding = self.tokenizer.encode(text)
        most = self.config.max_length
        target = cut_text(encoding, most)
        between = read_between(record, self.config.latent)
        return Example(
            condition=condition,
            prefix=prefix,
            prefix_ids=begin(prefix, form, self.tokenizer, most),
            form=form,
            gold=Gold([text], [], labels, form or own) if text else None,
            target=target,
            between=[cut_text(self.tokenizer.encode(text), most) for text in between],
            is_cut=len(target) < len(encoding) - 2,
        )

    def numbered(self, example: Example, number: int) -> Example:
        """The example as line `number` of its file: its texts are drawn by the seed and it."""
        return replace(example, number=number)

    def augmenter(self, examples: Sequence[Example]) -> Callable[[Example, Any], Example] | None:
        """With `latent` draws the noise of each example, so that it is the same however a batch is
        cut."""
        variables = self.config.latent
        categories = self.config.categories
        if variables is None:
            return None

        def augment(example: Example, random: Any) -> Example:
            if categories is None:
                noise = random.standard_normal(variables)
            else:
                noise = random.gumbel(size=(variables, categories))
            return replace(example, noise=noise.astype(np.float32))

        return augment

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """Pads the beginnings, and with targets also the texts."""
        assert self.space is not None
        nothing: list[list[int]] = [[] for _ in examples]
        conditions = [example.condition for example in examples]
        sources = collate_sources(
            nothing, self.tokenizer, [example.prefix_ids for example in examples]
        )
        batch = Batch(list(examples), sources, self.space.tensor(conditions))
        if not targets:
            return batch
        learned = [example.target for example in examples]
        noises = [torch.from_numpy(e.noise) for e in examples if e.noise is not None]
        return replace(
            batch,
            noise=torch.stack(noises) if noises else None,
            wrong=self.space.tensor([self.space.wrong(condition) for condition in conditions]),
            pairs=collate_pairs([Pair((), target) for target in learned], self.tokenizer),
            texts=None if self.config.latent is None else collate_sources(learned, self.tokenizer),
        )

    def build_model(self, encoder: nn.Module) -> Model:
        """The encoder with conditional norms."""
        assert self.space is not None
        config = self.config
        hidden_size: Any = encoder.hidden_size
        latent: Latent | CategoricalLatent | None = None
        if config.latent is not None and config.categories is not None:
            latent = CategoricalLatent(
                hidden_size,
                config.latent,
                config.categories,
                config.size,
                config.free,
                config.annealing,
                start=config.gumbel_start,
                end=config.gumbel_end,
            )
        elif config.latent is not None:
            latent = Latent(hidden_size, config.latent, config.size, config.free, config.annealing)
        return Model(encoder, self.space, config.size, latent)

    def beams_and_steps(self, example: Example) -> tuple[int, int]:
        """See `task.Writes`: all samples of a condition, or the beams that find them."""
        beams = self.config.beam_size if self.config.search == "beams" else 1
        return max(beams, self.config.samples), self.config.max_length

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """`samples` texts for every example."""
        return Writer(self.config, self.tokenizer, self.metres).write(model, batch)

    def evaluate(
        self, model: Model, batch: Batch, *, loose: bool = False, brief: bool = False
    ) -> list[Prediction]:
        """How likely the gold texts are, under the right and a wrong condition; and, unless
        `brief`, texts."""
        found = [Prediction([])] * len(batch.examples) if brief else self.decode(model, batch)
        judged = self.collate(batch.examples).to(batch.condition.device)
        assert judged.pairs is not None
        nats = [nats_B.tolist() for nats_B in model.judge(judged)]
        known = zip(found, *nats, judged.pairs.count_B.tolist(), strict=True)
        return [Assessed(p.texts, p.scores, *of_gold) for p, *of_gold in known]

    def facts(self, prediction: Prediction) -> dict[Any, str]:
        """Each text is a fact, in one group for all."""
        return dict.fromkeys(prediction.texts, "text")

    def score(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
        """See `metrics`."""
        return score_texts(list(pairs), self.config.training)

    def with_answers(
        self,
        predictions: Sequence[Prediction],
        ask: Callable[[list[dict[str, Any]]], list[Any]],
    ) -> list[Prediction]:
        """The predictions with the label that a classifier gives to each of their texts."""
        return with_verdicts(predictions, ask)

    def report(self, example: Example) -> Iterator[Finding]:
        """Texts that are not learned to their end, and texts that are never written as they are."""
        text = example.gold.texts[0] if example.gold else ""
        written = self.metres.writing.text(self.tokenizer.token_ids(text))
        if self.space is not None and written != text:
            yield Finding("written otherwise", difference(text, written))
        if example.is_cut:
            yield Finding(
                "cut",
                f"{len(example.target)} tokens are learned, max_length is {self.config.max_length}",
            )
