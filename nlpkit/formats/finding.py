"""What `data check` has to say of one line."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something `data check` has to say of a line; `lost` is the gold fact that the model can never
    see, if one is."""

    kind: str
    message: str
    lost: Hashable | None = None
