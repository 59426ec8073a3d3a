"""The gradient of a layer that has it by hand, where it is to be differentiated again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def again(
    formula: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], gradient: Any
) -> list[torch.Tensor | None]:
    """The gradient by each of the inputs, as autograd finds it through the formula, with a graph of
    its own; None by an input that needs none.

    Args:
        formula: (*inputs) -> output, of operations that autograd knows.
        inputs: as the layer was given them.
        gradient: of the loss by the output.
    """
    needed = [tensor for tensor in inputs if tensor.requires_grad]
    output = formula(*inputs)
    found = iter(torch.autograd.grad(output, needed, gradient, create_graph=True))
    return [next(found) if tensor.requires_grad else None for tensor in inputs]
