"""The model card of a run: what it is, from what, and what it reached."""

from __future__ import annotations

import json
from typing import Any


def model_card(config: dict[str, Any]) -> str:
    """Markdown from the `config.json` of a finished run."""
    result = config["result"]
    data = config["data"]
    train = config["settings"]["train"]
    metrics = "\n".join(f"| {name} | {value} |" for name, value in result["metrics"].items())
    versions = ", ".join(f"{name} {number}" for name, number in config["versions"].items())
    settings = json.dumps(config["settings"], ensure_ascii=False, indent=1)
    return f"""# {config["task"]} on {config["encoder"]["name"]}

Trained with nlpkit on {", ".join(data["train"])} ({data["train_lines"]} lines), seed {train["seed"]}, in \
{result["seconds"]:.0f} seconds, {config["precision"]} precision, {config["processes"]} process(es).
The best checkpoint by {result["monitor"]} on dev ({data["dev"]}, {data["dev_lines"]} lines), which also tuned the
thresholds:

| metric | value |
|---|---|
{metrics}

    nlpkit predict RUN FILE
    nlpkit eval RUN --data FILE

Versions: {versions}. Data: train sha256 {data["train_sha256"]}, dev sha256 {data["dev_sha256"]}.

```json
{settings}
```
"""
