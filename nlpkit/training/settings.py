"""The settings of the trainer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from nlpkit import optim
from nlpkit.config import Count, LearningRate, Positive, Range, Rate, Seed, Weight
from nlpkit.optim import wrappers
from nlpkit.optim.groups import parse_rates
from nlpkit.optim.schedule import parse_schedule
from nlpkit.training import balance, techniques
from nlpkit.training.tensorboard import check_tensorboard


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the trainer, section `train`."""

    epochs: Annotated[int, Range(1, 1_000_000)] = 10
    """Passes over the training data."""
    batch_size: Annotated[int, Range(1, 1_000_000)] = 16
    """Examples of an optimiser step, over all processes."""
    batch_by: Literal["examples", "tokens"] = "examples"
    """Whether steps have equal examples, or equal tokens and `batch_size` examples on average."""
    accumulate: Positive = 1
    """Cuts every batch into at least this many micro-batches, to save memory; the gradient is the
    same but for dropout."""
    max_tokens: Positive | None = None
    """Most tokens, padding included, in one micro-batch; a larger batch is cut, to the same
    gradient. None takes 2,048 on a processor and 16,384 on a GPU."""
    optimizer: str | None = None
    """`adamw`; `muon`: Muon for the linear layers of the encoder, AdamW for the rest; `lamb`,
    `lion` or `sgdm`. None takes what suits the encoder: `muon` for small ones, `adamw` for
    checkpoints from elsewhere and `dgcnn`."""
    wrappers: tuple[str, ...] = ()
    """`name(argument=value)` of what wraps the steps of the optimizer (`nlpkit.optim.wrappers`),
    e.g. `["lookahead(k=5, alpha=0.5)"]`; a later one wraps an earlier one."""
    learning_rate: LearningRate | None = None
    """Top of the schedule; none takes what suits the encoder and the optimizer."""
    layer_decay: Annotated[float, Range(above=0, most=1)] = 1.0
    """Every layer of the encoder learns at this multiple of the rate of the layer above it."""
    rates: tuple[str, ...] = ()
    """`regex=multiplier` for the rate of the parameters whose names fit, e.g. `["embedding=0.1"]`;
    first fit wins."""
    schedule: str = "0:0 0.06:1 1:0"
    """Piecewise-linear multiplier of the rate: share of all steps : multiplier."""
    weight_decay: Weight = 0.01
    """Of the optimizer; vectors (biases, norms) have none."""
    clip_norm: Weight = 1.0
    """Largest norm of a step's gradient; 0 for any."""
    average: Rate = 0.0
    """Decay of the moving average of the weights that is evaluated and saved; 0 for the weights
    themselves."""
    techniques: tuple[str, ...] = ()
    """`name(argument=value)` of what wraps the parts of a step (`nlpkit.training.techniques`), e.g.
    `["flooding(level=0.1)"]`; a later one wraps an earlier one."""
    unlabelled: tuple[str, ...] = ()
    """Files whose lines count for the technique `vat` alone, which needs no gold and looks at none:
    each step has `batch_size` of them beside the others."""
    balance: str = "sum"
    """How the losses of several tasks, or of a model that has several, are weighed
    (`nlpkit.training.balance`): `sum`, `prior(losses=[0.7, 2.3])`, `initial`, `scale_free`,
    `generalised_mean(exponent=0)`, `normalised` or `pareto`."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`fp32`, `bf16`, or `auto`: the faster one, measured at the start."""
    evaluate_every: Annotated[float, Range(above=0, most=1e9)] = 1.0
    """Epochs between evaluations."""
    patience: Count = 0
    """Stop after this many evaluations without a new best; 0 for never."""
    seed: Seed = 1
    """Of weights, batches and dropout."""
    tensorboard: bool = False
    """Also write the metrics of every evaluation for TensorBoard, to the folder `tensorboard` of
    the run (the extra `nlpkit[tensorboard]`)."""

    def __post_init__(self) -> None:
        if self.optimizer is not None:
            optim.check_name(self.optimizer)
        wrappers.parse(self.wrappers)
        wrapping = techniques.parse(self.techniques)
        if self.unlabelled and not any(map(techniques.takes_unlabelled, wrapping)):
            raise ValueError(
                "unlabelled: no technique learns from lines without gold: "
                'expected train.techniques=["vat"]'
            )
        balance.parse(self.balance)
        parse_rates(self.rates)
        parse_schedule(self.schedule)
        if self.tensorboard:
            check_tensorboard()

    def completed(self, way: str) -> TrainConfig:
        """With optimizer and learning rate set, for an encoder that learns in a way
        (`learns_as`)."""
        optimizer = self.optimizer or optim.default_for(way)
        rate = self.learning_rate or optim.learning_rate(optimizer, way)
        return replace(self, optimizer=optimizer, learning_rate=rate)
