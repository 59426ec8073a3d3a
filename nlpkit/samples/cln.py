"""Made-up texts of a label: reviews (see `nlpkit.samples.classification`), to be written instead of
told apart.

{"label": "好评", "text": "在云泽住了一晚，房间干净又安静。下次还来！"}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nlpkit.samples import classification


def records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` records; the same seed gives the same records."""
    for record in classification.records(count, seed):
        yield {"label": record["label"], "text": record["text"]}
