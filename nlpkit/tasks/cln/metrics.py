r"""Generated texts: what a prediction holds, and the metrics of texts and of their model.

perplexity        exp(sum of -log p(token | before, condition) / tokens), the ends counted, over the
                  gold texts
wrong_perplexity  the same under another condition (`ConditionSpace.wrong`): what the condition is
                  worth
likelihood        1 / perplexity: the geometric mean of p
agreement         share of the generated texts to which a classifier gives a label of their
                  condition
form_accuracy     share of those whose condition names a form of poems that have that form exactly
distinct_1, distinct_2, self_bleu       see `diversity`
copied_12         share of the texts that have 12 characters or more in a row from one of the
                  training texts
copied_mean       the longest such string, in characters, the mean over the texts
length            characters, the mean over the texts
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nlpkit.formats.typed import read_dataclass
from nlpkit.jsonl import read_jsonl
from nlpkit.tasks.cln.diversity import distinct, longest_copies, self_bleu
from nlpkit.tasks.cln.poem_forms import fits

COPIED = 12
"""Characters in a row from which on a text counts as copied."""


@dataclass(frozen=True)
class Prediction:
    """Texts of one condition, with the log-probabilities with which they were drawn, in nats."""

    texts: list[str]
    scores: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Gold(Prediction):
    """A text of training, and what a text of its condition should be like."""

    labels: tuple[str, ...] = ()
    form: str = ""
    """The pattern of a poem, "" for none."""


@dataclass(frozen=True)
class Assessed(Prediction):
    """What evaluation knows besides: of the gold text -log p in nats under the right and under a
    wrong condition, and its tokens, the end included."""

    nats: float = 0.0
    wrong_nats: float = 0.0
    tokens: int = 0
    verdicts: list[str] = field(default_factory=list)
    """The label that a classifier gives to each of the texts; empty where none was asked."""


def parse_prediction(value: dict[str, Any]) -> Prediction:
    """A prediction as found in a file. Raises RecordError."""
    return read_dataclass(Prediction, value)


def score_texts(
    pairs: Sequence[tuple[Any, Prediction]], training: Sequence[str] = ()
) -> dict[str, Any]:
    """The metrics that the (gold, prediction) pairs allow.

    `training` are files of texts that may have been copied; without any, nothing is said of it.
    """
    texts = [text for _, prediction in pairs for text in prediction.texts]
    metrics = _of_the_model([p for _, p in pairs if isinstance(p, Assessed) and p.tokens])
    if not texts:
        return metrics
    metrics |= {"texts": len(texts), "length": sum(map(len, texts)) / len(texts)}
    agreed = []
    for gold, found in pairs:
        if gold.labels and isinstance(found, Assessed):
            agreed += [verdict in gold.labels for verdict in found.verdicts]
    if agreed:
        metrics["agreement"] = sum(agreed) / len(agreed)
    formed = []
    for gold, found in pairs:
        if gold.form:
            formed += [fits(text, gold.form) for text in found.texts]
    if formed:
        metrics["form_accuracy"] = sum(formed) / len(formed)
    metrics["distinct_1"] = distinct(texts, 1)
    metrics["distinct_2"] = distinct(texts, 2)
    metrics["self_bleu"] = self_bleu(texts)
    if training:
        learned = [str(record.get("text", "")) for _, record in read_jsonl(training)]
        copies = longest_copies(texts, learned)
        metrics["copied_12"] = sum(length >= COPIED for length in copies) / len(copies)
        metrics["copied_mean"] = sum(copies) / len(copies)
    return {name: round(value, 6) for name, value in metrics.items()}


def with_verdicts(
    predictions: Sequence[Prediction], ask: Callable[[list[dict[str, Any]]], list[Any]]
) -> list[Prediction]:
    """The predictions with a classifier's label for each of their texts.

    `ask` gives the classifier's predictions, with their `label`, for records with a `text`.
    """
    records = [{"text": text} for prediction in predictions for text in prediction.texts]
    labels = iter([found.label for found in ask(records)])
    judged: list[Prediction] = []
    for prediction in predictions:
        known = prediction
        if not isinstance(known, Assessed):
            known = Assessed(prediction.texts, prediction.scores)
        judged.append(replace(known, verdicts=[next(labels) for _ in prediction.texts]))
    return judged


def _of_the_model(assessed: Sequence[Assessed]) -> dict[str, Any]:
    tokens = sum(prediction.tokens for prediction in assessed)
    if not tokens:
        return {}
    nats = sum(prediction.nats for prediction in assessed) / tokens
    wrong = sum(prediction.wrong_nats for prediction in assessed) / tokens
    return {
        "likelihood": round(math.exp(-nats), 6),
        "perplexity": round(math.exp(min(nats, 700)), 6),
        "wrong_perplexity": round(math.exp(min(wrong, 700)), 6),
        "tokens": tokens,
    }
