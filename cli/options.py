"""Options that several commands have, each said once."""

from __future__ import annotations

from typing import Annotated

from typer import Option

BatchSize = Annotated[int, Option(min=1, help="Most texts of a batch.")]
Device = Annotated[str, Option(help="auto, cpu or cuda.")]
Metric = Annotated[str | None, Option(help="Default: the one that picks the best checkpoint.")]
Processes = Annotated[int, Option(min=1, help="Processes that share every batch.")]
SystemsData = Annotated[
    str | None, Option(help="JSONL with gold; files of predictions carry their own.")
]
SystemsTask = Annotated[str | None, Option(help="The task of files of predictions.")]
TaskSettings = Annotated[
    list[str] | None, Option("--set", help="A setting of the task: section.key=value.")
]
