"""Figures of a report, drawn by matplotlib as SVG to stand in a page: text stays text, colours suit
a light page and a dark one."""

from __future__ import annotations

import html
import importlib.util
import io
import logging
import re
import warnings
from typing import Any

from nlpkit.errors import SettingsError
from nlpkit.evaluation.report_parts import Figure, Series

COLOURS = ("#3b82c4", "#d9822b", "#2f9e6e", "#a663cc", "#c2504a", "#7d8590")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v")
GREY = "#808080"  # legible on white and on black
KEY = 30  # characters of a name in the key of a figure
LETTER = 0.13  # inches of a row of bars
_WIDE = re.compile(r"[^\x00-\u02ff]")  # characters as wide as they are high; a W is so too
STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def check_figures() -> None:
    """Raises SettingsError where there is no matplotlib to draw with."""
    if importlib.util.find_spec("matplotlib") is None:
        raise SettingsError(
            "the figures of a report need matplotlib",
            hint="pip install 'nlpkit[report]', or write -o report.md",
        )


def draw(figure: Figure) -> str:
    """The figure as an `<svg>` element; it needs matplotlib (`check_figures`)."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    style: Any = {**STYLE, "svg.hashsalt": figure.caption}
    with matplotlib.rc_context(style):
        size = (6.4, 3.4) if figure.kind == "lines" else (6.4, _height(figure))
        canvas = Canvas(figsize=size, layout="constrained")
        axes = canvas.subplots()
        several = len(figure.series) > 1
        if figure.kind == "bars":
            _bars(axes, figure)
            if several:
                canvas.legend(loc="outside lower center", ncols=2)
        else:
            _lines(axes, figure)
            if several:
                axes.legend(loc="best")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # the page's reader has the fonts
            if figure.kind == "bars":
                _fit_names(canvas, axes)
            return _svg(canvas, figure.caption)


def _height(figure: Figure) -> float:
    """Of horizontal bars, in inches."""
    rows = sum(len(series.x) for series in figure.series)
    return 1.0 + max(len(figure.series[0].x) * 0.26, rows * LETTER)


def _lines(axes: Any, figure: Figure) -> None:
    for number, series in enumerate(figure.series):
        style = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": STYLES[number % len(STYLES)],
            "marker": MARKERS[number % len(MARKERS)] if len(series.x) <= 40 else "",
        }
        axes.plot(series.x, series.y, label=in_key(series.name), markersize=4, **style)
        if series.low:
            axes.fill_between(series.x, series.low, series.high, color=style["color"], alpha=0.15)
    if figure.diagonal:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for x, y, name in figure.marked:
        axes.plot([x], [y], marker="X", markersize=9, color=GREY)
        axes.annotate(name, (x, y), xytext=(6, 8), textcoords="offset points")
    axes.set_xlabel(figure.x_name)
    axes.set_ylabel(figure.y_name)
    axes.grid(alpha=0.2)


def _bars(axes: Any, figure: Figure) -> None:
    """Points with intervals, a row for each name, the first on top."""
    names = list(figure.series[0].x)
    places = range(len(names))
    for number, series in enumerate(figure.series):
        shift = (number - (len(figure.series) - 1) / 2) * 0.22
        rows = [place + shift for place in places]
        axes.errorbar(
            series.y,
            rows,
            xerr=_distances(series),
            fmt=MARKERS[number % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            label=in_key(series.name),
            markersize=4,
            capsize=2,
        )
    axes.set_yticks(list(places), names)
    axes.invert_yaxis()
    axes.set_xlabel(figure.y_name)
    axes.grid(axis="x", alpha=0.2)


def _fit_names(canvas: Any, axes: Any) -> None:
    """Leaves as much room for names in Chinese as they take in a font that has them."""
    names = [label.get_text() for label in axes.get_yticklabels()]
    axes.set_yticklabels([_WIDE.sub("W", name) for name in names])
    canvas.get_layout_engine().set(w_pad=0.1)
    canvas.draw_without_rendering()
    canvas.set_layout_engine("none")
    axes.set_yticklabels(names)


def in_key(name: str) -> str:
    """The name of a system as the key of a figure has room for it: the end tells more than the
    beginning, which is often the same folder."""
    return name if len(name) <= KEY else "…" + name[1 - KEY :]


def _distances(series: Series) -> list[list[float]] | None:
    """How far the intervals reach to either side, as matplotlib wants them."""
    if not series.low:
        return None
    below = [max(0.0, y - low) for y, low in zip(series.y, series.low, strict=True)]
    above = [max(0.0, high - y) for y, high in zip(series.y, series.high, strict=True)]
    return [below, above]


def _svg(canvas: Any, caption: str) -> str:
    """The element alone, with its caption for those who can't see it; it takes the page's width."""
    stream = io.StringIO()
    canvas.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = text.replace(f"fill: {GREY}", "fill: currentColor")
    name = f'<svg role="img" aria-label="{html.escape(caption, quote=True)}"'
    return text.replace("<svg", name, 1)
