"""Settings of similarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from nlpkit.config import Length, Range, Size

Kind = Literal["labels", "grades", "groups"]
Loss = Literal["am_softmax", "softmax", "contrastive", "cosent"]

LOSSES: dict[Kind, tuple[Loss, ...]] = {
    "groups": ("contrastive", "am_softmax", "softmax"),
    "labels": ("cosent", "contrastive"),
    "grades": ("cosent",),
}
"""The losses that a kind of data can be learnt with, the default one first."""
MONITORS: dict[Kind, str] = {"groups": "mrr", "labels": "accuracy", "grades": "spearman"}
"""The metric that picks the best checkpoint."""


@dataclass(frozen=True)
class Settings:
    """Settings, section `similarity`."""

    loss: Loss | None = None
    """`am_softmax` (groups as classes), `softmax` (the same without margin), `contrastive` (the
    other examples of the step are wrong answers), `cosent` (the order of the cosines); none: of
    groups `contrastive`, of pairs `cosent`."""
    kind: Kind | None = None
    """What the lines hold: pairs with `labels` 0 and 1 or with `grades`, or texts in `groups`;
    none: noted by training."""
    pooling: Literal["mean", "cls"] = "mean"
    """The vector of a text: the mean over its tokens, or that of [CLS]."""
    output: Literal["answer", "vector"] = "answer"
    """What is predicted: the score of a pair and the neighbours of a text, or their vectors."""
    nearest: Size = 10
    """Sentences of the knowledge base listed for a text."""
    kb: str = ""
    """The sentences among which the nearest are looked up: JSON lines with `text` and, if wanted,
    `group`, or a sentence a line."""
    kb_sha256: str | None = None
    """Of the knowledge base's content, noted by training; none: any content will do."""
    project: Annotated[int, Range(0, 16_384)] = 0
    """Numbers that a random projection leaves of each vector of the knowledge base, fewer than the
    encoder gives; a cosine c then errs by about (1 - c^2) / sqrt(project). 0 leaves all."""
    margin: Annotated[float, Range(0, 2)] = 0.35
    """With `am_softmax`: what is taken off the cosine with the right group."""
    scale: Annotated[float, Range(above=0, most=1000)] = 30.0
    """With `am_softmax` and `softmax`: of the cosines."""
    temperature: Annotated[float, Range(above=0, most=1000)] = 0.05
    """With `contrastive` and `cosent`: the cosines are divided by it."""
    threshold: Annotated[float, Range(-1, 1)] | None = None
    """A pair has the label 1 where its cosine lies above; none: tuned for accuracy on the dev set
    at every evaluation."""
    max_length: Length = 128
    """Longer texts are cut to overlapping windows of so many tokens (fewer where the encoder takes
    fewer)."""
