"""Made-up reading comprehension, see `nlpkit.samples._reading`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nlpkit.samples._reading import reading_records
from nlpkit.samples._world import World


def records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` records; the same seed gives the same records."""
    return reading_records(World(f"mrc_span {seed}"), count)
