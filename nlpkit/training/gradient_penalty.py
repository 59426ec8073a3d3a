r"""A penalty on the norm of the gradient of a step's mean loss L, exact however the step is cut.

    P = weight / 2 * ||grad_x L||^2,      grad P = weight * d/dtheta <g, grad_x L>,  g = grad_x L fixed

for some of the parameters x. By g the gradient of P is linear in the losses of the examples, so
that a second pass adds it up piece by piece, as a first one has added up g over all pieces and
processes. Dropout draws the same in both.

A kernel that cannot be differentiated twice is avoided (fused attention and cuDNN's recurrences) or
refused.

Source: https://kexue.fm/archives/7234 (the penalty); Pearlmutter 1994, Fast exact multiplication by
the Hessian (the product H g as a gradient).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from nlpkit.errors import SettingsError
from nlpkit.training.gradient_cache import random_states, set_random_states
from nlpkit.training.perturbation import examples_of, own_gradients, summed
from nlpkit.training.step import MicroBatches, TrainingStep


def backward_with_penalty(
    step: TrainingStep,
    inner: Callable[[MicroBatches], torch.Tensor],
    micro_batches: MicroBatches,
    parameters: Sequence[torch.Tensor],
    weight: float,
) -> torch.Tensor:
    """`inner`, and the gradient of the penalty by some parameters on top of it; sums_2, with the
    penalty in the loss.

    The penalty is that of the losses as `step.objective` gives them: where `inner` trains on
    other gradients than theirs, a pass more finds g. All processes must call it.
    """
    accelerator = step.state.accelerator
    before = random_states(accelerator.device)
    with twice_differentiable():
        sums_2 = inner(micro_batches)
        after = random_states(accelerator.device)
        examples = examples_of(accelerator, sums_2)
        if inner == step.plain_backward:
            gradients = own_gradients(parameters)
        else:
            set_random_states(accelerator.device, before)
            gradients = _gradients(step, micro_batches, parameters)
        means = [total / examples for total in summed(accelerator, gradients)]
        set_random_states(accelerator.device, before)
        for batch in micro_batches():
            _add_product(step.objective(batch).sum(), parameters, means, weight)
        set_random_states(accelerator.device, after)
    squares = sum(float(mean.double().square().sum()) for mean in means)
    sums_2[0] += weight / 2 * squares * sums_2[1]
    return sums_2


def _gradients(
    step: TrainingStep, micro_batches: MicroBatches, parameters: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """The gradient of the sum of this process's losses by some parameters."""
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for batch in micro_batches():
        loss = step.objective(batch).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        for total, gradient in zip(sums, found, strict=True):
            if gradient is not None:
                total += gradient
    return sums


def _add_product(
    loss: torch.Tensor,
    parameters: Sequence[torch.Tensor],
    means: Sequence[torch.Tensor],
    weight: float,
) -> None:
    """Adds the gradient of weight * <means, gradient of the loss by the parameters> to `.grad`."""
    found = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    products = []
    for gradient, mean in zip(found, means, strict=True):
        if gradient is not None and gradient.requires_grad:
            products.append((gradient * mean).sum())
    if products:
        (weight * torch.stack(products).sum()).backward()


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Within the block fused kernels that have no second gradient are not taken. Raises
    SettingsError where one is met all the same."""
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
            yield
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        raise SettingsError(
            f"train.techniques: a layer has no second gradient: {error}",
            hint="--set train.precision=fp32 takes other kernels; else another encoder",
        ) from None
