"""Models whose first weights nobody reads, since others are put in their place.

Drawing them takes seconds for a BERT-base, and on the device `meta` it imports torch's compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Undrawn(TorchFunctionMode):
    """Within the block the functions of `torch.nn.init` leave a tensor as it is: the weights of
    modules that are made there are arbitrary, and the random generator stays where it is."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """The tensor itself for a function of `torch.nn.init`; else what the function returns."""
        given = kwargs or {}
        if getattr(function, "__module__", None) == torch.nn.init.__name__:
            return given["tensor"] if "tensor" in given else args[0]
        return function(*args, **given)
