"""What a pretraining is asked for: its settings, and the plan that the command line makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from nlpkit.config import (
    LearningRate,
    Length,
    Positive,
    Range,
    Rate,
    Seed,
    Share,
    Weight,
    defaults_of,
)
from nlpkit.encoders import ShapeConfig, for_pretraining
from nlpkit.errors import SettingsError
from nlpkit.jsonl import open_binary
from nlpkit.pretraining.corpus import parse_source
from nlpkit.pretraining.teacher import Teacher, describe_teacher, open_teacher
from nlpkit.training.settings import TrainConfig


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of a pretraining, section `pretrain`; the shares are of encoders that fill in masks."""

    tokens: Annotated[int, Range(1, 10**15)] = 400_000_000
    """Tokens to train on, all passes together."""
    batch_tokens: Positive = 8192
    """Tokens of an optimiser step, over all processes."""
    length: Length = 128
    """Tokens of most sequences, [CLS] and [SEP] included."""
    long_share: Share = 0.1
    """Share of the steps whose sequences are as long as the encoder takes, so that its last
    positions learn too."""
    prefix_share: Share = 0.25
    """Share of the steps that continue a prefix (generation) instead of filling in masked words."""
    replaced_share: Share = 0.0
    """Share of the steps that find replaced tokens, which the encoder itself puts in for masked
    words (one more pass through it). What the shares leave are steps of masked words."""
    span_share: Share = 0.0
    """Share of the steps that point from a hidden run of words to the place where it stands again,
    in sequences as long as the encoder takes: for an encoder that will read (`mrc_span`).
    `long_share` is of the other steps then."""
    teacher_weight: Weight = 1.0
    """With --teacher: how much what the encoder lacks to its teacher counts, beside the masked words
    of the same steps; 0 for no teacher."""
    teacher_random: bool = False
    """With --teacher: give the teacher random weights, to see what its training is worth."""
    mask_share: Annotated[float, Range(above=0, below=1)] = 0.25
    """Share of the words that are masked."""
    optimizer: str = "muon"
    """`muon`, or another one of `nlpkit.optim`."""
    learning_rate: LearningRate = 3e-3
    """Top of the schedule."""
    rates: tuple[str, ...] = ()
    """`regex=multiplier` for the rate of the parameters whose names fit, e.g. `["head=3"]` for a
    head that starts at random; first fit wins."""
    schedule: str = "0:0 0.01:1 0.6:1 1:0"
    """Piecewise-linear multiplier of the rate: share of all steps : multiplier."""
    weight_decay: Weight = 0.1
    """Of the optimizer; vectors (biases, norms) have none. With a tenth of it Muon's matrices grow
    until blocks drown what they add to: masks are filled in as well, but tasks are learned worse
    than from random weights."""
    clip_norm: Weight = 1.0
    """Largest norm of a step's gradient; 0 for any."""
    average: Rate = 0.999
    """Decay of the moving average of the weights that is evaluated and saved; 0 for the weights
    themselves."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`fp32`, `bf16`, or `auto`: the faster one, measured at the start."""
    max_tokens: Positive | None = None
    """Most tokens in one piece of a batch; None takes 8,192 on a processor and 65,536 on a GPU."""
    evaluate_every: Annotated[int, Range(1, 10**15)] = 5_000_000
    """Tokens between evaluations; each of them saves the encoder."""
    seed: Seed = 1
    """Of weights, order, masks and cuts."""

    def __post_init__(self) -> None:
        shares = self.prefix_share + self.replaced_share + self.span_share
        if self.replaced_share and shares >= 1:
            raise ValueError(
                "replaced_share: expected less than 1 with prefix_share and span_share: "
                "masked words teach what to put in"
            )
        if self.span_share and shares > 1 + 1e-9:
            raise ValueError(
                f"span_share: expected at most 1 with prefix_share and replaced_share, got {shares:g}"
            )
        if self.length > self.batch_tokens:
            raise ValueError(
                f"length: expected at most batch_tokens ({self.batch_tokens}), got {self.length}"
            )
        self.for_trainer()

    def for_trainer(self) -> TrainConfig:
        """The trainer's settings. Raises ValueError for one that it refuses."""
        names = (
            "optimizer",
            "learning_rate",
            "rates",
            "schedule",
            "weight_decay",
            "clip_norm",
            "average",
            "precision",
            "seed",
        )
        return TrainConfig(
            max_tokens=self.max_tokens, **{name: getattr(self, name) for name in names}
        )


@dataclass(frozen=True)
class PretrainPlan:
    """What the user asked for. `texts` are files, each with `:WEIGHT` after it or not."""

    texts: tuple[str, ...]
    out: Path
    config: PretrainConfig = PretrainConfig()
    shape: Any = ShapeConfig()
    """`ShapeConfig`, or the settings of `encoder`."""
    start: str | None = None
    """The encoder to go on from; None for random weights of `shape`."""
    corpus: Path | None = None
    """Where the encoded texts are kept; None for a folder in `out` that goes at the end."""
    resume: str = "auto"
    force: bool = False
    teacher: str | None = None
    """The encoder to learn from besides: a directory, or the name of one that ships."""
    encoder: str | None = None
    """The encoder to make with random weights; None for a transformer."""

    def new_encoder(self) -> tuple[Any, Any]:
        """(encoder, tokenizer) to begin with; raises as `for_pretraining`."""
        return for_pretraining(self.start, self.shape, self.encoder)

    def new_teacher(self, student: Any) -> Teacher | None:
        """The teacher, for blocks of the tokenizer `student`; None where there is none, or its
        weight is 0. Raises as `open_teacher`."""
        if self.teacher is None or self.config.teacher_weight == 0:
            return None
        return open_teacher(self.teacher, student, self.config.teacher_random, self.config.seed)

    def described_teacher(self) -> dict[str, str] | None:
        """What a record says of the teacher; None where there is none."""
        return None if self.teacher is None else describe_teacher(self.teacher)

    def defaults(self) -> dict[str, Any]:
        """The part of the record in which nothing is set: for `refuse_differences`."""
        return {"pretrain": defaults_of(PretrainConfig), "shape": defaults_of(type(self.shape))}

    @property
    def may_resume(self) -> bool:
        """Whether a pretraining in `out` that is not finished is to be continued."""
        return self.resume == "auto" and not self.force

    def check(self) -> None:
        """Raises SettingsError or DataError for what is wrong with the plan, before `out` is
        overwritten."""
        inputs = [parse_source(text)[0] for text in self.texts]
        for text in inputs:
            open_binary(text).close()
        for path in (*inputs, self.start, self.corpus, self.teacher):
            if path is not None and Path(path).resolve().is_relative_to(self.out.resolve()):
                raise SettingsError(
                    f"{path}: lies in {self.out}, which is overwritten", hint="choose another --out"
                )
        if self.config.teacher_random and self.teacher is None:
            raise SettingsError(
                "pretrain.teacher_random: there is no teacher", hint="--teacher DIR"
            )
        encoder, backend = self.new_encoder()
        self.new_teacher(backend)
        if self.teacher is not None and encoder.objective == "next":
            raise SettingsError(
                "--teacher: not for this encoder, which learns the next token alone"
            )
        if encoder.objective == "next":
            _refuse_other_objectives(self.config)
        elif self.config.prefix_share and "prefix" not in encoder.attentions:
            raise SettingsError(
                "pretrain.prefix_share: expected 0, since the encoder cannot tell a source from a "
                "target: it has no second segment, or sees the whole text at once, "
                f"got {self.config.prefix_share}",
                hint="--set pretrain.prefix_share=0",
            )
        longest = encoder.max_length or self.config.length
        if not 8 <= self.config.length <= longest:
            raise SettingsError(
                f"pretrain.length: expected 8 to {longest}, got {self.config.length}"
            )


def _refuse_other_objectives(config: PretrainConfig) -> None:
    """Raises SettingsError where settings ask a language model for what others learn."""
    defaults = defaults_of(PretrainConfig)
    for name in ("prefix_share", "replaced_share", "span_share", "mask_share", "long_share"):
        value = getattr(config, name)
        if value not in (0, defaults[name]):
            raise SettingsError(
                f"pretrain.{name}: not for this encoder, which learns the next token alone"
            )
