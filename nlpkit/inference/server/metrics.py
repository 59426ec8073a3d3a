"""Counts of the service in the text format of Prometheus.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/, text format 0.0.4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nlpkit.inference.server.batches import Batches

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds: upper bounds of the classes of the histogram, the last one open."""

Sample = tuple[str, float]  # labels, as written, and the value


@dataclass
class Metrics:
    """Requests by status, and their durations in seconds from the first byte to the last."""

    statuses: Counter[int] = field(default_factory=Counter)
    classes: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0
    open: int = 0

    def done(self, status: int, seconds: float) -> None:
        """Counts a request that is over; status 499 is one whose client went away first."""
        self.statuses[status] += 1
        self.seconds += seconds
        place = sum(seconds > bound for bound in BOUNDS)
        self.classes[place] += 1

    def text(self, runs: Mapping[str, Batches], held: int) -> str:
        """All that is counted."""
        parts = [
            _family(
                "requests_total",
                "counter",
                "requests by status",
                [(f'{{status="{status}"}}', count) for status, count in self.statuses.items()],
            ),
            self._histogram(),
            _family("requests_open", "gauge", "requests at work", [("", self.open)]),
            _family("body_bytes", "gauge", "bytes of bodies in memory", [("", held)]),
        ]
        of_runs = (
            ("lines_total", "counter", "lines answered", lambda run: run.counts.lines),
            ("line_errors_total", "counter", "lines without a prediction", _errors),
            ("batches_total", "counter", "batches", lambda run: run.counts.batches),
            ("busy_seconds_total", "counter", "time of predicting", lambda run: run.counts.seconds),
            ("queue_lines", "gauge", "lines that wait", len),
        )
        for name, kind, what, value in of_runs:
            samples = [(f'{{run="{_escaped(run)}"}}', value(runs[run])) for run in runs]
            parts.append(_family(name, kind, what, samples))
        return "".join(parts)

    def _histogram(self) -> str:
        samples: list[Sample] = []
        total = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.classes, strict=True):
            total += count
            samples.append((f'_bucket{{le="{bound}"}}', total))
        samples += [("_sum", self.seconds), ("_count", total)]
        return _family("request_seconds", "histogram", "duration of requests", samples)


def _errors(run: Batches) -> int:
    return run.counts.errors


def _family(name: str, kind: str, what: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP nlpkit_{name} {what}\n# TYPE nlpkit_{name} {kind}\n"]
    lines += [f"nlpkit_{name}{labels} {value}\n" for labels, value in samples]
    return "".join(lines)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
