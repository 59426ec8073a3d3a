"""Techniques of training: each wraps one of the four parts of a step (`nlpkit.training.step`).

A technique is a file here; its name is the file's. It has a class `Technique`, a frozen dataclass
whose fields are the arguments, with a method named after each part that it wraps (mostly one):

    def objective(self, step, inner, batch) -> loss_B
    def backward(self, step, inner, micro_batches) -> sums_2
    def combine(self, step, inner, sums_2) -> Total
    def update(self, step, inner) -> None

`step` is the `TrainingStep`, `inner` the part as it was, with the arguments after it. Of several
techniques on one part a later one wraps an earlier one; none stands twice. What a technique must
remember from step to step it keeps in `step.state.memory`, which checkpoints hold. At strength 0 it
calls `inner` and does nothing else, so that it changes no bit. `check(model)`, where it has one, raises SettingsError
for a model that it cannot train; `needs_objective = True` says that its passes are of
`step.objective`, which a loss of a whole step does not have; `takes_unlabelled = True` that it asks
`step.all_micro_batches` for the lines of `train.unlabelled`.

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
    spectral_reparametrisation  backward,  1               kexue 6051; arXiv 1802.05957
                                update

A pass is one forward and backward of the step's batch; the first of `vat`'s last two has no
backward, and a longer one differentiates twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nlpkit.calls import Callables
from nlpkit.errors import SettingsError

PARTS = ("objective", "backward", "combine", "update")


def _callables() -> Callables:
    return Callables(__name__, __path__, "train", "techniques", "Technique")


def names() -> list[str]:
    """The techniques that exist: the files here."""
    return _callables().names()


def parse(calls: Iterable[str]) -> list[Any]:
    """The techniques of `name(argument=value, ...)` strings, in order.

    Raises ValueError for what is no such call or names no technique, SettingsError for an unknown
    or wrong argument, and for a technique that stands twice: the second would keep what it remembers
    in the place of the first, and the strength of both is that of one with other arguments.
    """
    found = _callables().parse(calls)
    modules = [type(technique).__module__ for technique in found]
    for place, module in enumerate(modules):
        if module in modules[:place]:
            name = module.rpartition(".")[2]
            raise SettingsError(
                f'train.techniques: "{name}" stands twice: expected each technique once',
                hint="keep the one whose arguments you want",
            )
    return found


def takes_unlabelled(technique: Any) -> bool:
    """Whether a technique learns from lines without gold too."""
    return getattr(technique, "takes_unlabelled", False)


def parts_of(technique: Any) -> list[str]:
    """The names of the parts that a technique wraps."""
    return [part for part in PARTS if hasattr(technique, part)]
