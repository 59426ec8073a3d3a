"""The model card of a pretrained encoder: what it is, from which texts, and how it got there."""

from __future__ import annotations

import json
from typing import Any

from nlpkit.encoders import RECORD, tokens_of

POINTS = 24  # most that the figure has


def pretraining_card(record: dict[str, Any], history: list[dict[str, Any]]) -> str:
    """Markdown from the record of a pretraining and its evaluations; the figure is in Mermaid."""
    reached = record.get("reached") or {}
    metrics = (
        "\n".join(f"| {name} | {value} |" for name, value in reached.items())
        or "| not evaluated yet | |"
    )
    texts = "\n".join(
        f"| {text['file']} | {text['tokens']:,} | {text['weight']:g} |" for text in record["texts"]
    )
    settings = json.dumps(
        {"pretrain": record["pretrain"], "shape": record["shape"]}, ensure_ascii=False, indent=1
    )
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    detects = record["pretrain"]["replaced_share"] > 0
    learned = (
        ", continued prefixes and tokens of its own that replace others"
        if detects
        else " and continued prefixes"
    )
    return f"""# A {record["shape"]["model_type"]} encoder, pretrained with nlpkit

Masked words (whole words by jieba){learned}, one set of weights;
{record["precision"]} precision on {record["device"]}, {record["processes"]} process(es).
From {_origin(record)}.

    nlpkit predict ENCODER                        # fills in [MASK]
    nlpkit train TASK --encoder ENCODER --data FILE

On held-out lines (15 % of the words masked; prefixes cut at random places):

| | |
|---|---|
{metrics}

| text | tokens | weight |
|---|---|---|
{texts}
{_figure(history)}
Versions: {versions}.

```json
{settings}
```
"""


def _origin(record: dict[str, Any]) -> str:
    """The weights that the pretraining started from."""
    start = record["start"] or "random weights"
    before = record.get("before")
    if before is None:
        return start
    return (
        f"{start}, which had read {tokens_of(before):,} tokens (`before` in `{RECORD}` tells which)"
    )


def _figure(history: list[dict[str, Any]]) -> str:
    """The masked perplexity over the tokens trained on."""
    if len(history) < 2:
        return ""
    every = -(-len(history) // POINTS)
    lines = history[::-1][::every][::-1]
    millions = ", ".join(f'"{line["tokens"] / 1e6:.3g}"' for line in lines)
    values = ", ".join(f"{line['masked_perplexity']:.4g}" for line in lines)
    return f"""
```mermaid
xychart-beta
    title "Masked perplexity on held-out lines"
    x-axis "million tokens" [{millions}]
    y-axis "perplexity"
    line [{values}]
```
"""
