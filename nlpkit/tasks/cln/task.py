r"""Conditional generation: texts of a label, of several attributes, or of a vector, written from
left to right.

    in   {"label": "好评", "text": "送得很快，味道也好"}     or "vector": [0.1, -2.0, ...]; "text" to train alone,
         {"label": "好评", "prefix": "送得"}                 "prefix" to go on with
    out  {..., "prediction": {"texts": ["送得很快，味道也好"], "scores": [-12.3]}}

The condition moves every LayerNorm of the encoder (`nlpkit.layers.conditional_norm`), which reads

    [CLS] [SEP] text [SEP]        each token sees those before it and predicts the next (`nlpkit.layers.prefix_lm`)

The loss is the sum of -log p over the text's tokens and its end, in nats, as is a score. A text
longer than `max_length` is learned up to its last punctuation before it. Sample k of line n of a
file is drawn by (`seed`, n, k): the same line gives the same texts, whatever stands beside it.

`form` has a poem's lines and punctuation written exactly: what stands where is a mask by position,
and the model chooses among what is left. With `latent` a line needs no label; `"between": ["送得很快",
"再也不来了"]` asks for texts on the way from one to the other. Metrics are those of `metrics`.

Source: https://kexue.fm/archives/7124.
Differs from it: /7124 sets no segment and reads no [SEP] before the text. Legend: B examples, R
texts, V vocabulary.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import nn

from nlpkit import task
from nlpkit.config import Positive, Range, Seed, Size, Weight
from nlpkit.decoding.constraint import Model as TokenModel
from nlpkit.decoding.repetition import NoRepeat
from nlpkit.decoding.sampling import sample
from nlpkit.decoding.search import Hypotheses, beam_search
from nlpkit.errors import RecordError, SettingsError
from nlpkit.formats.finding import Finding
from nlpkit.formats.typed import read_json
from nlpkit.jsonl import write_atomic
from nlpkit.layers.prefix_lm import Pair, collate_pairs, collate_sources
from nlpkit.layers.vae import Latent
from nlpkit.tasks.cln.conditions import Condition, ConditionSpace, read_condition
from nlpkit.tasks.cln.detokenize import Writing
from nlpkit.tasks.cln.metrics import (
    Assessed,
    Gold,
    Prediction,
    cut_text,
    parse_prediction,
    score_texts,
    with_verdicts,
)
from nlpkit.tasks.cln.model import (
    Batch,
    ConditionedDecoder,
    Example,
    Model,
    read_between,
    read_string,
)
from nlpkit.tasks.cln.poem_constraint import Metres
from nlpkit.tasks.cln.poem_forms import begins, form_of
from nlpkit.text.tokenizer import Tokenizer

ROWS = 128  # texts that are written side by side
FILE = "characters.json"
UNKNOWN = "[UNK]"
SPECIAL = 2  # [CLS] and [SEP], which stand before a text


@dataclass(frozen=True)
class Settings:
    """Settings, section `cln`."""

    size: Size = 128
    """Numbers of the condition that the norms see."""
    max_length: Size = 128
    """Tokens that are written at most, and that are learned of a text; a `prefix` is not
    counted."""
    latent: Size | None = None
    """Numbers of a vector of every text that is learned with the labels, or without any
    (`nlpkit.layers.vae`)."""
    free: Weight = 0.25
    """Nats that each number of the latent vector may tell of its text at no cost."""
    annealing: Positive = 20_000
    """Examples over which the cost of the latent vector rises to the whole."""
    samples: Size = 1
    """Texts for every line."""
    search: Literal["sample", "beams"] = "sample"
    """Draw the texts, or take the likeliest that a beam search finds, by the mean log-probability
    of their tokens."""
    beams: Size = 4
    """Of the search; at least `samples` are taken."""
    temperature: Annotated[float, Range(above=0, most=1e9)] = 1.0
    """Logits are divided by it: below 1 the likely becomes likelier."""
    top_k: Positive | None = None
    """Draw from so many tokens, the likeliest; none for all."""
    top_p: Annotated[float, Range(above=0, most=1)] = 0.95
    """Draw from the fewest tokens that have this probability together."""
    no_repeat: Size | None = None
    """No sequence of so many tokens is written twice in a text; none for any."""
    seed: Seed = 1
    """Of the drawing."""
    form: str = ""
    """A form that every text has exactly: `label` for the form of poems that its label names, a
    form's name, or a pattern in which 字 stands for any ideograph and other characters for
    themselves."""
    classifier: str = ""
    """A run of `classification`, for the metric `agreement` of `eval`."""
    training: tuple[str, ...] = ()
    """Files with texts of training, for the metrics `copied_12` and `copied_mean` of `eval`."""


class Task(task.AsksRun, task.Task[Example, Batch, Prediction]):
    """See the module docstring."""

    Config = Settings
    monitor = "likelihood"
    group = "text"
    asked_setting = "cln.classifier"
    asked_task = "classification"
    parse = staticmethod(parse_prediction)

    @classmethod
    def needs_head(cls, config: Settings) -> bool:
        """Yes: it writes."""
        return True

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
        `prefix`."""
        condition, text, prefix = (
            read_condition(record),
            read_string(record, "text"),
            read_string(record, "prefix"),
        )
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
        return Example(
            condition=condition,
            prefix=prefix,
            prefix_ids=self._begin(prefix, form),
            form=form,
            gold=Gold([text], [], labels, form or own) if text else None,
            target=target,
            between=[
                cut_text(self.tokenizer.encode(t), most)
                for t in read_between(record, self.config.latent)
            ],
            is_cut=len(target) < len(encoding) - 2,
        )

    def numbered(self, example: Example, number: int) -> Example:
        """The example as line `number` of its file: its texts are drawn by the seed and it."""
        return replace(example, number=number)

    def _begin(self, prefix: str, form: str) -> list[int]:
        """The tokens of a prefix. Raises RecordError where it leaves no room or is not of the
        form."""
        prefix_ids = list(self.tokenizer.token_ids(prefix))
        limit = self.tokenizer.max_length
        if limit is not None:
            room = limit - SPECIAL - self.config.max_length
            if len(prefix_ids) > room:
                raise RecordError(
                    f'field "prefix": expected at most {room} tokens, got {len(prefix_ids)}',
                    hint="a smaller cln.max_length leaves more",
                )
        if form and (len(prefix_ids) != len(prefix) or not begins(prefix, form)):
            raise RecordError(
                f'field "prefix": expected the beginning of {form}, got "{prefix[:40]}"'
            )
        if len(form) - len(prefix) > self.config.max_length:
            raise RecordError(
                f"the form of the label has {len(form)} characters, "
                f"cln.max_length is {self.config.max_length}"
            )
        return prefix_ids

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
        return replace(
            batch,
            wrong=self.space.tensor([self.space.wrong(condition) for condition in conditions]),
            pairs=collate_pairs([Pair((), target) for target in learned], self.tokenizer),
            texts=None if self.config.latent is None else collate_sources(learned, self.tokenizer),
        )

    def build_model(self, encoder: nn.Module) -> Model:
        """The encoder with conditional norms."""
        assert self.space is not None
        c, hidden_size = self.config, getattr(encoder, "hidden_size", 0)
        latent = (
            None if c.latent is None else Latent(hidden_size, c.latent, c.size, c.free, c.annealing)
        )
        return Model(encoder, self.space, c.size, latent)

    def decode(self, model: Model, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """`samples` texts for every example."""
        c = self.config
        copies = 1 if c.search == "beams" and c.latent is None else c.samples
        rows = [(row, copy) for row in range(len(batch.examples)) for copy in range(copies)]
        found = [Prediction([], []) for _ in batch.examples]
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            for (row, _), texts in zip(some, self._write(model, batch, some).lists(), strict=True):
                example = batch.examples[row]
                for token_ids, score in texts[: c.samples // copies]:
                    found[row].texts.append(
                        self.metres.text(token_ids, example.prefix, example.form)
                    )
                    found[row].scores.append(round(score, 4))
        return found

    def _write(self, model: Model, batch: Batch, rows: list[tuple[int, int]]) -> Hypotheses:
        """One text for each (example, copy), or the best for each example."""
        c, examples = self.config, [batch.examples[row] for row, _ in rows]
        row_R = torch.tensor([row for row, _ in rows], device=batch.condition.device)
        condition_RC = model.seen(batch.condition[row_R], self._latents(model, examples, rows))
        decoder: TokenModel = ConditionedDecoder(model, batch.sources.rows(row_R), condition_RC)
        if c.no_repeat is not None:
            decoder = NoRepeat(decoder, c.no_repeat)
        begun = [len(example.prefix_ids) for example in examples]
        constraint = self.metres.constraint(
            [example.form for example in examples],
            begun,
            model.encoder.vocabulary_size,
            row_R.device,
        )
        if c.search == "beams":
            beams = max(c.beams, c.samples)
            return beam_search(
                decoder, constraint, len(rows), beams, c.max_length, length_normalised=True
            )
        seeds = [(c.seed, batch.examples[row].number, copy) for row, copy in rows]
        kept: dict[str, Any] = {"temperature": c.temperature, "top_k": c.top_k, "top_p": c.top_p}
        return sample(decoder, constraint, seeds, c.max_length, **kept)

    def _latents(
        self, model: Model, examples: list[Example], rows: list[tuple[int, int]]
    ) -> torch.Tensor | None:
        """z of each text: drawn from N(0, 1), or on the way from one text to the other; None
        without latent vectors."""
        if model.latent is None:
            return None
        device, points = model.latent.seen.device, max(1, self.config.samples - 1)
        z_RZ = []
        for example, (_, copy) in zip(examples, rows, strict=True):
            if example.between:
                first_Z, last_Z = model.posterior(
                    collate_sources(example.between, self.tokenizer).to(device)
                )[0]
                z_RZ.append(
                    torch.lerp(first_Z, last_Z, 0.5 if self.config.samples == 1 else copy / points)
                )
            else:
                random = np.random.default_rng((self.config.seed, example.number, copy, 1))
                z_RZ.append(
                    torch.from_numpy(random.standard_normal(self.config.latent)).float().to(device)
                )
        return torch.stack(z_RZ)

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
        """The texts."""
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
            yield Finding("written otherwise", _difference(text, written))
        if example.is_cut:
            yield Finding(
                "cut",
                f"{len(example.target)} tokens are learned, max_length is {self.config.max_length}",
            )


def _difference(text: str, written: str) -> str:
    """Where two texts begin to differ, in words."""
    shared = zip(text, written, strict=False)
    place = next((n for n, (a, b) in enumerate(shared) if a != b), min(len(text), len(written)))
    wanted = text[place : place + 1]
    got = UNKNOWN if written.startswith(UNKNOWN, place) else written[place : place + 1]
    return f"{wanted!r} at {place} is {got!r} to the tokenizer, and will be written so"
