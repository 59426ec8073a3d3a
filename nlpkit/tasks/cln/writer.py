"""Texts written for a batch of conditions: drawn token by token, or found by a beam search.

Sample k of line n is drawn by (`seed`, n, k) alone; so is its latent vector.
Legend: R texts, C numbers of the condition, Z numbers of the latent vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nlpkit.decoding.constraint import Model as TokenModel
from nlpkit.decoding.repetition import NoRepeat
from nlpkit.decoding.sampling import sample
from nlpkit.decoding.search import Hypotheses, beam_search
from nlpkit.layers.prefix_lm import collate_sources
from nlpkit.tasks.cln.examples import Example
from nlpkit.tasks.cln.metrics import Prediction
from nlpkit.tasks.cln.model import Batch, ConditionedDecoder, Model
from nlpkit.tasks.cln.poem_constraint import Metres
from nlpkit.text.tokenizer import Tokenizer

ROWS = 128  # texts that are written side by side


@dataclass(frozen=True)
class Writer:
    """Writes texts; `config` is the `Settings` of the task."""

    config: Any
    tokenizer: Tokenizer
    metres: Metres

    def write(self, model: Model, batch: Batch) -> list[Prediction]:
        """`samples` texts for every example, with their scores in nats; of a search the best
        first."""
        config = self.config
        is_search = config.search == "beams" and model.latent is None
        copies = 1 if is_search else config.samples  # rows of an example
        wanted = config.samples // copies  # texts of a row
        rows = [(row, copy) for row in range(len(batch.examples)) for copy in range(copies)]
        found = [Prediction([], []) for _ in batch.examples]
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            texts_R = self._hypotheses(model, batch, some).lists()
            for (row, _), texts in zip(some, texts_R, strict=True):
                example = batch.examples[row]
                for token_ids, score in texts[:wanted]:
                    text = self.metres.text(token_ids, example.prefix, example.form)
                    found[row].texts.append(text)
                    found[row].scores.append(round(score, 4))
        return found

    def _hypotheses(self, model: Model, batch: Batch, rows: list[tuple[int, int]]) -> Hypotheses:
        """One text for each (example, copy); of a beam search, the best of each."""
        config = self.config
        examples = [batch.examples[row] for row, _ in rows]
        row_R = torch.tensor([row for row, _ in rows], device=batch.condition.device)
        condition_RC = model.seen(batch.condition[row_R], self._latents(model, examples, rows))
        decoder: TokenModel = ConditionedDecoder(model, batch.sources.rows(row_R), condition_RC)
        if config.no_repeat is not None:
            decoder = NoRepeat(decoder, config.no_repeat)
        constraint = self.metres.constraint(
            [example.form for example in examples],
            [len(example.prefix_ids) for example in examples],
            model.encoder.vocabulary_size,
            row_R.device,
        )
        if config.search == "beams":
            beam_size = max(config.beam_size, config.samples)
            return beam_search(
                decoder, constraint, len(rows), beam_size, config.max_length, length_normalised=True
            )
        return sample(
            decoder,
            constraint,
            [(config.seed, batch.examples[row].number, copy) for row, copy in rows],
            config.max_length,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
        )

    def _latents(
        self, model: Model, examples: list[Example], rows: list[tuple[int, int]]
    ) -> torch.Tensor | None:
        """z_RZ; None without latent vectors."""
        if model.latent is None:
            return None
        pairs = zip(examples, rows, strict=True)
        return torch.stack([self._latent(model, example, copy) for example, (_, copy) in pairs])

    def _latent(self, model: Model, example: Example, copy: int) -> torch.Tensor:
        """z of a text: drawn from the prior, or on the way from one text to the other."""
        assert model.latent is not None
        device = model.latent.seen.device
        if not example.between:
            random = np.random.default_rng((self.config.seed, example.number, copy, 1))
            return model.latent.from_prior(random).to(device)
        sources = collate_sources(example.between, self.tokenizer).to(device)
        first_Z, last_Z = model.latent.mode(*model.posterior(sources))
        share = 0.5
        if self.config.samples > 1:
            share = copy / (self.config.samples - 1)
        return model.latent.between(first_Z, last_Z, share)
