"""Pretraining put together: corpus, encoder, trainer, held-out figures, and files that are a
checkpoint at every stop.

    config.json tokenizer.json model.safetensors     the encoder with its language-model head: one
                                                     of the BERT family as `transformers` reads it
                                                     too, others in a format of nlpkit's own
    pretraining.json                                 settings, texts, versions, and what was reached
    metrics.jsonl README.md                          a line for each evaluation; model card
    checkpoint.safetensors corpus/                   of a training that is not finished

It is the trainer of the tasks that trains, on losses of tokens instead of examples. What a step
sees is a pure function of (seed, step), so that a stopped pretraining goes on as if it had not
been.
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nlpkit import encoders
from nlpkit.encoders import RECORD
from nlpkit.encoders.checkpoint.load import save_encoder
from nlpkit.inference.devices import keep_freed_memory
from nlpkit.jsonl import write_atomic
from nlpkit.pretraining.blocks import Blocks
from nlpkit.pretraining.card import pretraining_card
from nlpkit.pretraining.corpus import Corpus, load_corpus
from nlpkit.pretraining.distillation import Distillation, teacher_figures
from nlpkit.pretraining.held_out import (
    BLOCKS,
    detection_f1,
    held_out_blocks,
    perplexities,
    pointing_figures,
)
from nlpkit.pretraining.objectives import (
    Kind,
    PretrainBatch,
    Pretrainer,
    masked_batch,
    next_batch,
    prefix_batch,
    replaced_batch,
)
from nlpkit.pretraining.settings import PretrainPlan
from nlpkit.pretraining.spans import WordClasses, span_batch
from nlpkit.pretraining.steps import Steps
from nlpkit.pretraining.symbols import symbols_of
from nlpkit.pretraining.teacher import Teacher
from nlpkit.text.backend import vocabulary_hash
from nlpkit.training.checkpoints import CHECKPOINT, Event, kept, write_state
from nlpkit.training.loop import Evaluation, train
from nlpkit.training.state import TrainState

MASKS = 2  # of the generators from one seed, beside `steps.KIND`
MEASURED = 64  # blocks on which a teacher's vectors are measured


class Pretraining:
    """A pretraining ready to go. Iterate over `events()`.

    Args:
        plan: what to do.
        accelerator: an `accelerate.Accelerator` (see `nlpkit.inference.devices`).
    """

    def __init__(self, plan: PretrainPlan, accelerator: Any):
        self.plan = plan
        self.config = plan.config
        self.accelerator = accelerator
        self.started = time.monotonic()
        self.finished = False
        if accelerator.device.type == "cpu":
            keep_freed_memory()
        torch.manual_seed(self.config.seed)
        self.encoder, self.backend = plan.new_encoder()
        self.symbols = symbols_of(self.backend)
        self.folder = plan.corpus or plan.out / "corpus"
        self.corpus = self._load_corpus()
        self.steps = Steps(self.config, self.encoder)
        has_long = self.steps.long_share > 0 or self.config.span_share > 0
        longest = (self.encoder.max_length or 0) if has_long else 0
        self.lengths = (self.config.length, max(self.config.length, longest))
        sizes = [len(source.tokens) for source in self.corpus.sources]
        weights = [source.weight for source in self.corpus.sources]
        seed = self.config.seed
        self.blocks = [Blocks(sizes, weights, length - 2, seed) for length in self.lengths]
        self.held_out = held_out_blocks(self.corpus.held_out, self.config.length - 2)
        if self.config.span_share:
            self._prepare_spans()
        steps = max(1, self.config.tokens // self.config.batch_tokens)
        self.every = max(1, self.config.evaluate_every // self.config.batch_tokens)
        self.teacher = plan.new_teacher(self.backend)
        model = self._new_model()
        self.state = TrainState(model, self.config.for_trainer(), steps, accelerator)
        self.record = self._describe()

    def _prepare_spans(self) -> None:
        """The classes of the words, and held-out blocks as long as those of the steps of spans: one
        of all tokens where there are too few."""
        texts = [source.tokens for source in self.corpus.sources]
        self.classes = WordClasses(self.backend, texts)
        tokens = self.corpus.held_out
        length = min(self.lengths[1] - 2, len(tokens))
        self.long_held_out = held_out_blocks(tokens, length, BLOCKS // 4)

    def _new_model(self) -> Pretrainer:
        """The encoder with what it learns by; a teacher's vectors are measured on the first
        blocks."""
        heads = (self.config.replaced_share > 0, self.config.span_share > 0)
        if self.teacher is None:
            return Pretrainer(self.encoder, *heads)
        device = self.accelerator.device
        distillation = Distillation(self.encoder, self.teacher.to(device)).to(device)
        model = Pretrainer(self.encoder, *heads, distillation, self.config.teacher_weight)
        blocks = self.blocks[0]
        first = [self._block(blocks, place) for place in range(min(MEASURED, blocks.per_pass))]
        with self.accelerator.autocast():
            distillation.measure(self.teacher.lesson(first).to(device))
        return model

    def _load_corpus(self) -> Corpus:
        """The texts, encoded by the main process while the others wait."""
        texts = list(self.plan.texts)
        is_main = self.accelerator.is_main_process
        if is_main:
            corpus = load_corpus(self.folder, texts, self.backend)
        self.accelerator.wait_for_everyone()
        return corpus if is_main else load_corpus(self.folder, texts, self.backend, encode=False)

    @property
    def too_short(self) -> list[str]:
        """The texts without a stretch as long as the encoder takes, which the long steps leave
        out."""
        counts = zip(self.corpus.sources, self.blocks[1].counts, strict=True)
        return [source.path for source, count in counts if count == 0]

    @property
    def tokens_per_pass(self) -> int:
        """Of all sources by their weights."""
        return self.blocks[0].per_pass * self.config.length

    def micro_batches(self, step: int) -> Iterator[PretrainBatch]:
        """This process's micro-batches of the batch of a step (counted from 0), in order."""
        is_long, kind = self.steps.kind_of(step)
        rows = max(1, self.config.batch_tokens // self.lengths[is_long])
        first = rows * self.steps.before(step, is_long)
        mine = range(self.accelerator.process_index, rows, self.accelerator.num_processes)
        most = self.config.max_tokens or (65536 if self.accelerator.device.type == "cuda" else 8192)
        size = max(1, most // self.lengths[is_long])
        for start in range(0, len(mine), size):
            part = mine[start : start + size]
            blocks = [self._block(self.blocks[is_long], first + row) for row in part]
            randoms = [np.random.default_rng((self.config.seed, MASKS, step, row)) for row in part]
            batch = self._batch(blocks, randoms, kind, self.config.mask_share)
            if self.teacher is not None and kind == "masked":
                batch = replace(batch, lesson=self.teacher.lesson(blocks))
            yield batch

    def _block(self, blocks: Blocks, place: int) -> np.ndarray:
        source, start = blocks[place]
        return self.corpus.sources[source].tokens[start : start + blocks.length]

    def _batch(self, blocks: Any, randoms: Any, kind: Kind, share: float) -> PretrainBatch:
        if kind in ("next", "previous", "both"):
            return next_batch(blocks, kind, self.encoder.directions, self.symbols)
        if kind == "prefix":
            return prefix_batch(blocks, randoms, self.symbols)
        if kind == "spans":
            return span_batch(blocks, randoms, share, self.symbols, self.classes)
        return (masked_batch if kind == "masked" else replaced_batch)(
            blocks, randoms, share, self.symbols
        )

    def evaluate(self) -> dict[str, Any]:
        """Perplexities of the held-out blocks, always with the same masks (15 % of the words) and
        cuts, for a language model of all tokens; F1 of the replaced tokens that are found, and
        accuracy of pointing to hidden spans, where they are learned.

        With several processes each of them computes the same figures, so that none waits for
        another.
        """
        model, autocast = self.state.model, self.accelerator.autocast
        found = perplexities(model, self._held_out_batches, autocast)
        if self.config.replaced_share:
            found["replaced_f1"] = detection_f1(model, self._held_out_batches, autocast)
        if self.config.span_share:
            found |= pointing_figures(model, self._held_out_batches, autocast)
        if self.teacher is not None:
            found |= teacher_figures(model, self._lessons(self.teacher), autocast)
        return {"tokens": self.state.step * self.config.batch_tokens, **found}

    def _lessons(self, teacher: Teacher) -> Iterator[PretrainBatch]:
        """Every fourth held-out block, with masks and a lesson: a teacher may be slow."""
        blocks = self.held_out[::4]
        for start in range(0, len(blocks), 64):
            part = blocks[start : start + 64]
            randoms = [np.random.default_rng((0, start + row)) for row in range(len(part))]
            batch = replace(self._batch(part, randoms, "masked", 0.15), lesson=teacher.lesson(part))
            yield batch.to(self.accelerator.device)

    def _held_out_batches(self, kind: Kind) -> Iterator[PretrainBatch]:
        held_out, size = (self.long_held_out, 16) if kind == "spans" else (self.held_out, 64)
        for start in range(0, len(held_out), size):
            blocks = held_out[start : start + size]
            randoms = [np.random.default_rng((0, start + row)) for row in range(len(blocks))]
            yield self._batch(blocks, randoms, kind, 0.15).to(self.accelerator.device)

    def events(self) -> Iterator[Event]:
        """Trains to the end, or until `state.interrupted` is set; saves the encoder at every
        evaluation and stop."""
        monitor = f"{self.encoder.objective}_accuracy"
        events = train(self.state, self.micro_batches, self.evaluate, monitor, self.every)
        self.finished = yield from kept(events, self.state, self._save)
        if self.finished and self.accelerator.is_main_process:
            self._finish()

    def _save(self, event: Event) -> None:
        """Writes the encoder, unless only the clock asks, and a checkpoint; all processes must call
        it."""
        if isinstance(event, Evaluation) or event.interrupted:
            self.save_encoder()
        write_state(self.state, self.plan.out)

    def save_encoder(self) -> None:
        """Writes the encoder as it is evaluated, with its card."""
        if not self.accelerator.is_main_process:
            return
        out = self.plan.out
        history = [
            {key: line[key] for key in line if key != "epoch"} for line in self.state.history
        ]
        with self.state.evaluated_weights():
            save_encoder(out, self.encoder, self.backend)
        with write_atomic(out / "metrics.jsonl") as stream:
            stream.write(b"".join(json.dumps(line).encode() + b"\n" for line in history))
        self.record["tokens"] = self.state.step * self.config.batch_tokens
        self.record["reached"] = (
            history[-1] if history else None
        )  # after an interruption the weights are newer
        with write_atomic(out / "README.md") as stream:
            stream.write(pretraining_card(self.record, history).encode())
        write_record(out, self.record)

    def summary(self) -> dict[str, Any]:
        """The last line of `nlpkit encoder pretrain`."""
        return {
            "encoder": str(self.plan.out),
            **self.record["reached"],
            "seconds": self.record["seconds"],
        }

    def _finish(self) -> None:
        self.record["seconds"] = round(time.monotonic() - self.started, 1)
        self.save_encoder()
        (self.plan.out / CHECKPOINT).unlink(missing_ok=True)
        if self.plan.corpus is None:
            shutil.rmtree(self.folder)

    def _describe(self) -> dict[str, Any]:
        """What `RECORD` says of a new pretraining."""
        packages = ("nlpkit", "torch", "transformers", "tokenizers", "jieba", "numpy")
        return {
            "pretrain": asdict(self.config),
            "start": self.plan.start,
            "teacher": self.plan.described_teacher(),
            "before": encoders.record_of(self.plan.start) if self.plan.start else None,
            "shape": encoders.shape_of(self.encoder),
            "texts": self.corpus.describe(),
            "vocabulary_sha256": vocabulary_hash(self.backend),
            "processes": self.accelerator.num_processes,
            "precision": self.accelerator.mixed_precision,
            "device": self.accelerator.device.type,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in packages},
            },
        }


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Writes settings, versions and results to `RECORD`, all or nothing."""
    with write_atomic(folder / RECORD) as stream:
        stream.write(json.dumps(record, ensure_ascii=False, indent=1).encode() + b"\n")
