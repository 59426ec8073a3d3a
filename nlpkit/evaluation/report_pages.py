"""A report as one HTML page or as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from nlpkit.evaluation.report_figures import draw
from nlpkit.evaluation.report_lines import VERDICTS, segments
from nlpkit.evaluation.report_parts import Block, Figure, Mark, Section, Shown, Table

TEMPLATE = Path(__file__).with_name("report.html")
SIGNS = {"right": "✓", "missed": "−", "extra": "+"}
"""Of verdicts, so that nothing is said by colour alone."""
_NUMBER = re.compile(r"[-+]?[\d,.]+")


def html_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The report as a page that needs no other file."""
    contents = []
    parts = []
    for number, section in enumerate(sections):
        contents.append(f'<a href="#s{number}">{escape(section.title)}</a>')
        blocks = "\n".join(_html(block) for block in section.blocks)
        note = f"<p>{escape(section.note)}</p>" if section.note else ""
        parts.append(
            f'<section><h2 id="s{number}">{escape(section.title)}</h2>{note}\n{blocks}</section>'
        )
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        contents=" ".join(contents),
        sections="\n".join(parts),
    )


def _html(block: Block) -> str:
    if isinstance(block, Table):
        return _html_table(block)
    if isinstance(block, Figure):
        caption = f"<figcaption>{escape(block.caption)}</figcaption>"
        return f"<figure>{draw(block)}{caption}</figure>"
    names = {"right": "right", "missed": "missed", "extra": "extra: predicted, but wrong"}
    keys = [f'<span class="key {v}">{SIGNS[v]} {names[v]}</span>' for v in VERDICTS]
    return f"<p>{' '.join(keys)}</p>" + "\n".join(_html_line(line) for line in block.lines)


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(str(name))}</th>" for name in table.head)
    rows = []
    for row in table.rows:
        rows.append(f"<tr>{''.join(map(_html_cell, row))}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>\n{"".join(rows)}</table></div>'


def _html_cell(value: Any) -> str:
    kind = ' class="number"' if _NUMBER.fullmatch(str(value)) else ""
    return f"<td{kind}>{escape(str(value))}</td>"


def _html_line(line: Shown) -> str:
    text = "".join(_html_piece(*segment) for segment in segments(line.text, line.marks))
    facts = "".join(
        f'<li><span class="key {verdict}">{SIGNS[verdict]} {escape(words)}</span></li>'
        for verdict, words in line.facts
    )
    beams = "".join(f"<li>{escape(beam)}</li>" for beam in line.beams)
    parts = [f'<div class="where">{escape(line.where)}</div><div class="text">{text}</div>']
    parts += [f"<ul>{facts}</ul>"] if facts else []
    parts += [f'<div class="where">beams</div><ol>{beams}</ol>'] if beams else []
    return f'<div class="shown">{"".join(parts)}</div>'


def _html_piece(piece: str, over: Sequence[Mark], ending: Sequence[Mark]) -> str:
    """A piece of text under marks; the worst of them gives the colour."""
    if not over:
        return escape(piece)
    worst = max(over, key=lambda mark: VERDICTS.index(mark.verdict)).verdict
    labels = "".join(
        f"<small>{SIGNS[mark.verdict]}{escape(mark.label)}</small>" for mark in ending if mark.label
    )
    return f'<mark class="{worst}">{escape(piece)}{labels}</mark>'


def markdown_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The report as Markdown; a figure is a table of its points."""
    parts = [f"# {title}", subtitle]
    for section in sections:
        parts.append(f"## {section.title}")
        if section.note:
            parts.append(section.note)
        parts += [_markdown(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Table):
        return _markdown_table(block)
    if isinstance(block, Figure):
        rows = []
        for series in block.series:
            step = max(1, len(series.x) // 12)
            points = list(zip(series.x, series.y, strict=True))[::step]
            rows += [[series.name, _short(x), _short(y)] for x, y in points]
        table = Table(["series", block.x_name or "name", block.y_name], rows)
        return f"{block.caption}\n\n{_markdown_table(table)}"
    return "\n\n".join(_markdown_line(line) for line in block.lines)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _markdown_table(table: Table) -> str:
    lines = [list(map(str, table.head)), ["---"] * len(table.head)]
    lines += [[str(value) for value in row] for row in table.rows]
    return "\n".join("| " + " | ".join(map(_markdown_cell, line)) + " |" for line in lines)


def _markdown_cell(text: str) -> str:
    return re.sub(r"([|\\`*_<>])", r"\\\1", text.replace("\n", " "))


def _markdown_line(line: Shown) -> str:
    """The text with `[piece](sign label)` for marks, and the facts below it."""
    text = ""
    for piece, over, ending in segments(line.text, line.marks):
        labels = ", ".join(f"{SIGNS[mark.verdict]}{mark.label}" for mark in ending)
        shown = _markdown_cell(piece)
        text += (f"**{shown}**" if over else shown) + (
            f" ({_markdown_cell(labels)}) " if labels else ""
        )
    parts = [f"{_markdown_cell(line.where)}: {text}"]
    parts += [f"- {SIGNS[verdict]} {_markdown_cell(words)}" for verdict, words in line.facts]
    parts += [f"- beam: {_markdown_cell(beam)}" for beam in line.beams]
    return "\n".join(parts)
