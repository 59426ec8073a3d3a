"""The settings of conditional generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from nlpkit.config import Positive, Range, Seed, Size, Weight


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
    categories: Annotated[int, Range(2, 65_536)] | None = None
    """With `latent`: each of its variables is not a number but one of so many categories, drawn by
    Gumbel softmax (`nlpkit.layers.gumbel`)."""
    gumbel_start: Annotated[float, Range(0.001, 1000)] = 1.0
    """With `categories`: the temperature of the Gumbel softmax at the start."""
    gumbel_end: Annotated[float, Range(0.001, 1000)] = 0.1
    """With `categories`: the temperature after `annealing` examples, to which it falls by a constant
    factor an example."""
    samples: Size = 1
    """Texts for every line."""
    search: Literal["sample", "beams"] = "sample"
    """Draw the texts, or take the likeliest that a beam search finds, by the mean log-probability
    of their tokens."""
    beam_size: Size = 4
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

    def __post_init__(self) -> None:
        if self.categories is not None and self.latent is None:
            raise ValueError("categories: expected cln.latent, how many variables, beside it")
