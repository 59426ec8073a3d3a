"""`nlpkit report`: one file on runs: curves, groups, calibration, and errors shown in the text."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.options import BatchSize, Device, Metric, SystemsData, SystemsTask, TaskSettings
from nlpkit.errors import SettingsError

Option = typer.Option


def report(
    systems: Annotated[
        list[Path], typer.Argument(help="Runs, folders of seeds, or files of predictions.")
    ],
    output: Annotated[Path, Option("--output", "-o", help="F.html, or F.md for Markdown.")],
    data: SystemsData = None,
    task: SystemsTask = None,
    metric: Metric = None,
    set_: TaskSettings = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
) -> None:
    """Write a report as one file that needs no network: HTML, or Markdown by the name."""
    if output.suffix not in (".html", ".md"):
        raise SettingsError(f"{output}: expected a name that ends in .html or .md")
    from nlpkit.evaluation.report_figures import check_figures

    if output.suffix == ".html":
        check_figures()
    from nlpkit.evaluation.report import make_sections
    from nlpkit.evaluation.report_pages import html_page, markdown_page
    from nlpkit.evaluation.systems import Asked
    from nlpkit.jsonl import write_atomic

    asked = Asked(data, task, set_ or [], batch_size, device)
    sections = make_sections(systems, asked, metric)
    page = html_page if output.suffix == ".html" else markdown_page
    names = ", ".join(system.name for system in systems)
    on = f" on {data}" if data else ""
    today = datetime.date.today().isoformat()
    text = page(f"Report: {names}{on}", f"Written by nlpkit on {today}.", sections)
    with write_atomic(output) as stream:
        stream.write(text.encode())
