"""The model card of a pretrained encoder: what it is, from which texts, and how it got there."""

from __future__ import annotations

import json
from typing import Any

from nlpkit.encoders import RECORD, tokens_of
from nlpkit.encoders.transformer_settings import FAMILIES, read_settings

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
    masked = record["shape"]["model_type"] in FAMILIES
    told = _of_masked_words(record) if masked else _of_next_tokens(record)
    learned, use, held_out = told
    return f"""# A {record["shape"]["model_type"]} encoder, pretrained with nlpkit

{learned};
{record["precision"]} precision on {record["device"]}, {record["processes"]} process(es).
From {_origin(record)}.
{_teacher(record)}
{use}
    nlpkit train TASK --encoder ENCODER --data FILE

{held_out}

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


def _of_masked_words(record: dict[str, Any]) -> tuple[str, str, str]:
    """(what was learned, what else it is good for, what the figures are of)."""
    learned = ["Masked words (whole words by jieba)", "continued prefixes"]
    if record["pretrain"]["replaced_share"] > 0:
        learned.append("tokens of its own that replace others")
    if record["pretrain"].get("span_share", 0) > 0:
        learned.append("the places where hidden runs of words stand again")
    told = f"{', '.join(learned[:-1])} and {learned[-1]}, one set of weights"
    if not read_settings(record["shape"]).are_standard:
        told += ". The files are in nlpkit's own format, since transformers has no such model"
    use = "    nlpkit predict ENCODER                        # fills in [MASK]"
    held_out = "On held-out lines (15 % of the words masked; prefixes cut at random places):"
    return told, use, held_out


def _of_next_tokens(record: dict[str, Any]) -> tuple[str, str, str]:
    """The same of a language model."""
    learned = "A language model: the next token from those before"
    if record["shape"].get("directions") == "both":
        learned += ", and by a second stack the token before from those behind"
    learned += ". The files are in nlpkit's own format, since transformers has no such model"
    use = "    nlpkit encoder tree ENCODER TEXTS             # trees of sentences"
    if record["shape"].get("cell") == "lstm":
        use = "    nlpkit encoder info ENCODER"
    held_out = f"On held-out lines, all tokens of blocks of {record['pretrain']['length'] - 2}:"
    return learned, use, held_out


def _origin(record: dict[str, Any]) -> str:
    """The weights that the pretraining started from."""
    start = record["start"] or "random weights"
    before = record.get("before")
    if before is None:
        return start
    return (
        f"{start}, which had read {tokens_of(before):,} tokens (`before` in `{RECORD}` tells which)"
    )


def _teacher(record: dict[str, Any]) -> str:
    """A line on the teacher, and nothing where there is none."""
    teacher = record.get("teacher")
    weight = record["pretrain"].get("teacher_weight", 0)
    if teacher is None or weight == 0:
        return ""
    weights = " with random weights" if record["pretrain"]["teacher_random"] else ""
    return (
        f"Taught by `{teacher['name']}`{weights} (sha256 {teacher['sha256'][:16]}) in the steps of "
        f"masked words: its vectors of pieces of the text, in a middle and the last layer, weight "
        f"{weight:g}.\n"
    )


def _figure(history: list[dict[str, Any]]) -> str:
    """The first of the perplexities over the tokens trained on."""
    if len(history) < 2:
        return ""
    every = -(-len(history) // POINTS)
    lines = history[::-1][::every][::-1]
    millions = ", ".join(f'"{line["tokens"] / 1e6:.3g}"' for line in lines)
    name = next(key for key in lines[0] if key.endswith("_perplexity"))
    values = ", ".join(f"{line[name]:.4g}" for line in lines)
    title = name.replace("_", " ").capitalize()
    return f"""
```mermaid
xychart-beta
    title "{title} on held-out lines"
    x-axis "million tokens" [{millions}]
    y-axis "perplexity"
    line [{values}]
```
"""
