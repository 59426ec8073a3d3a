r"""The exact gradient of a loss that couples all examples of a step, with the memory of one piece.

    1. v = vectors of all pieces, without gradient               (M, N, H), all processes together
    2. g = gradient of the loss sum_m L_m(v) by v                a small graph: no encoder in it
    3. piece by piece: v' = its vectors again, backward of <v', g>

By the chain rule the sum over pieces of (dv'/dweights)^T g is the gradient of the whole. The
generators go back to where they stood for a piece in 1, so that dropout draws the same in 3. It
costs one more forward pass.

Which numbers dropout draws depends on how a step is cut, as it does without this; given those, the
gradient is exact.

Source: https://kexue.fm/archives/8471 (equation 11: v' against fixed vectors); Gao et al. 2021,
arxiv.org/abs/2101.06983, section 3. Differs from them: random states are kept, processes share.
Legend: B examples of a piece, M of the step, N vectors of an example, H their size, K numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from nlpkit.task import CoupledModel


def cached_backward(
    model: CoupledModel, accelerator: Any, micro_batches: Callable[[], Iterable[Any]]
) -> torch.Tensor:
    """Adds the gradient of the sum of the step's losses to `.grad`: this process's part of it, so
    that the sum over the processes is the whole.

    Returns (sum of losses, examples) of this process's examples, as `TrainingStep.backward` does.
    All processes must call it.
    """
    device = accelerator.device
    pieces = [batch.to(device) for batch in micro_batches()]
    if len(pieces) == 1 and accelerator.num_processes == 1:
        return _backward_of_whole(model, accelerator, pieces[0])
    states = []
    vectors = []
    numbers = []
    for piece in pieces:
        states.append(random_states(device))
        with torch.no_grad(), accelerator.autocast():
            vectors.append(model.example_vectors(piece))
        numbers.append(model.example_numbers(piece))
    vectors_MNH, numbers_MK, own = _of_all_processes(accelerator, model, vectors, numbers)
    vectors_MNH.requires_grad_()
    loss_M = model.coupled_loss(vectors_MNH, numbers_MK)
    (gradient_MNH,) = torch.autograd.grad(loss_M.sum(), vectors_MNH)
    first = own.start
    for piece, state in zip(pieces, states, strict=True):
        set_random_states(device, state)
        with accelerator.autocast():
            vectors_BNH = model.example_vectors(piece)
        end = first + len(vectors_BNH)
        vectors_BNH.backward(gradient_MNH[first:end].to(vectors_BNH.dtype))
        first = end
    return _sums(loss_M[own])


def _backward_of_whole(model: CoupledModel, accelerator: Any, batch: Any) -> torch.Tensor:
    """The same of a step that is not cut: nothing need be computed twice."""
    with accelerator.autocast():
        vectors_BNH = model.example_vectors(batch)
    loss_B = model.coupled_loss(vectors_BNH, model.example_numbers(batch))
    loss_B.sum().backward()
    return _sums(loss_B)


def _sums(loss_B: torch.Tensor) -> torch.Tensor:
    """(sum of losses, examples): float64, (2,)."""
    loss_B = loss_B.detach().double()
    return torch.stack([loss_B.sum(), loss_B.new_tensor(len(loss_B))])


def random_states(device: torch.device) -> list[torch.Tensor]:
    """Where the generators stand that dropout on this device may draw from."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def set_random_states(device: torch.device, states: list[torch.Tensor]) -> None:
    """Puts the generators back to where `random_states` found them."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def _of_all_processes(
    accelerator: Any, model: Any, vectors: list[torch.Tensor], numbers: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, slice]:
    """(vectors_MNH, numbers_MK, which of the M are this process's): those of all processes, in the
    order of the processes. A process may have none."""
    if accelerator.num_processes == 1:
        vectors_MNH, numbers_MK = torch.cat(vectors), torch.cat(numbers)
        return vectors_MNH, numbers_MK, slice(0, len(vectors_MNH))
    sizes_P4 = torch.zeros(
        accelerator.num_processes, 4, dtype=torch.int64, device=accelerator.device
    )
    if vectors:
        shapes = *torch.cat(vectors).shape, numbers[0].shape[1]
        sizes_P4[accelerator.process_index] = sizes_P4.new_tensor(shapes)
    sizes_P4 = accelerator.reduce(sizes_P4, "sum")
    examples = int(sizes_P4[:, 0].sum())
    start = int(sizes_P4[: accelerator.process_index, 0].sum())
    own = slice(start, start + int(sizes_P4[accelerator.process_index, 0]))
    per_example, size, known = sizes_P4[:, 1:].amax(0).tolist()
    weight = next(model.parameters())
    vectors_MNH = weight.new_zeros(examples, per_example, size)
    numbers_MK = weight.new_zeros(examples, known, dtype=torch.float64)
    if vectors:
        vectors_MNH[own] = torch.cat(vectors).to(weight.dtype)
        numbers_MK[own] = torch.cat(numbers)
    # The others' places are zero: the sum puts everyone's rows side by side.
    vectors_MNH = accelerator.reduce(vectors_MNH.detach(), "sum")
    return vectors_MNH, accelerator.reduce(numbers_MK, "sum"), own
