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
    together = ""
    if "together" in config:
        others = [name for name in config["together"] if name != config["task"]]
        together = f" together with {', '.join(others)}, with one encoder,"
    monitor = result.get("chosen_by", result["monitor"])
    settings = json.dumps(config["settings"], ensure_ascii=False, indent=1)
    return f"""# {config["task"]} on {config["encoder"]["name"]}

Trained with nlpkit{together} on {", ".join(data["train"])} ({data["train_lines"]} lines), seed {train["seed"]}, in \
{result["seconds"]:.0f} seconds, {config["precision"]} precision, {config["processes"]} process(es).
The best checkpoint by {monitor} on dev ({data["dev"]}, {data["dev_lines"]} lines), which also tuned the
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
