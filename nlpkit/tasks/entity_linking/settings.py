"""Settings of entity linking."""

from __future__ import annotations

from dataclasses import dataclass

from nlpkit.config import Count, EvenSize, Length, Rate, Score, Size


@dataclass(frozen=True)
class Settings:
    """Settings, section `entity_linking`."""

    kb: str = ""
    """The knowledge base: JSON lines of CCKS, or columns with tabs between; only training needs
    it."""
    kb_sha256: str | None = None
    """Of the knowledge base's content, noted by training."""
    unknown: bool | None = None
    """Whether a name that is no alias may be a mention, of NIL; none: if there are such in the
    training data."""
    generative: bool = False
    """Whether entities are generated, as GENRE does, rather than matched; the encoder needs its
    masked-LM head."""
    max_description: Length = 64
    """Tokens of a description, [CLS] and [SEP] included."""
    choices: Size = 16
    """Namesakes that are looked at: those meant most often in training, then the first of the
    knowledge base."""
    negatives: Count = 3
    """Random entities that a mention is also compared with in training."""
    hide: Rate = 0.1
    """Chance of the right entity to be hidden in training, so that NIL is right."""
    size: Size = 64
    """Of the projections in which text and description are compared."""
    head_size: EvenSize = 64
    """Size of a query or key of the pointer."""
    initial_score: Score = -6.0
    """Where the scores of spans start; those of matches start at 0."""
    threshold: Score | None = None
    """A mention is predicted where its score lies above; none: tuned on the dev set at every
    evaluation."""
    nil_threshold: Score | None = None
    """It is NIL where its best candidate does not score above; none: tuned together with the
    threshold."""
    max_length: Length = 512
    """Longer texts are cut to overlapping windows of so many tokens (fewer where the encoder takes
    fewer)."""

    def __post_init__(self) -> None:
        if (self.threshold is None) != (self.nil_threshold is None):
            raise ValueError(
                "threshold and nil_threshold: expected both or none, they are tuned together"
            )
