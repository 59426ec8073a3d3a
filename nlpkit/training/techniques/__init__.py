"""Techniques of training: each wraps one of the four parts of a step (`nlpkit.training.step`).

A technique is a file here; its name is the file's. It has a class `Technique`, a frozen dataclass
whose fields are the arguments, with one method named after the part that it wraps:

    def objective(self, step, inner, batch) -> loss_B
    def backward(self, step, inner, micro_batches) -> sums_2
    def combine(self, step, inner, sums_2) -> Total
    def update(self, step, inner) -> None

`step` is the `TrainingStep`, `inner` the part as it was, with the arguments after it. Of several
techniques on one part a later one wraps an earlier one. What a technique must remember from step to
step it keeps in `step.state.memory`, which checkpoints hold. At strength 0 it calls `inner` and
does nothing else, so that it changes no bit. `check(model)`, where it has one, raises SettingsError
for a model that it cannot train; `needs_objective = True` says that its passes are of
`step.objective`, which a loss of a whole step does not have.

    technique                   wraps      passes a step   source
    fgm                         backward   2               kexue 7234; arXiv 1605.07725
    pgd                         backward   steps + 1       kexue 7234; arXiv 1706.06083
    embedding_gradient_penalty  backward   2, one longer   kexue 7234
    parameter_gradient_penalty  backward   2, one longer   kexue 7787; arXiv 2009.11162
    vat                         backward   iterations + 3  kexue 7466; arXiv 1704.03976
    rdrop                       objective  2               kexue 8496; arXiv 2106.14448
    flooding                    combine    1               kexue 7643; arXiv 2002.08709
    two_rate_flooding           backward   2               kexue 7643
    spectral_norm               combine    1               kexue 6051; arXiv 1705.10941
    spectral_bound              update     1               kexue 6051; arXiv 1804.04368

A pass is one forward and backward of the step's batch; the first of `vat`'s last two has no
backward, and a longer one differentiates twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nlpkit.calls import Callables

PARTS = ("objective", "backward", "combine", "update")


def _callables() -> Callables:
    return Callables(__name__, __path__, "train", "techniques", "Technique")


def names() -> list[str]:
    """The techniques that exist: the files here."""
    return _callables().names()


def parse(calls: Iterable[str]) -> list[Any]:
    """The techniques of `name(argument=value, ...)` strings, in order.

    Raises ValueError for what is no such call or names no technique, SettingsError for an unknown
    or wrong argument.
    """
    return _callables().parse(calls)


def part_of(technique: Any) -> str:
    """The name of the part that a technique wraps."""
    (part,) = [part for part in PARTS if hasattr(technique, part)]
    return part
