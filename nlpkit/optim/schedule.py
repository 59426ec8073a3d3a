"""A learning-rate schedule as a piecewise-linear function of the share of steps done."""

from __future__ import annotations

import math
from bisect import bisect_right

Points = list[tuple[float, float]]


def parse_schedule(text: str) -> Points:
    """`"0:0 0.1:1 1:0"` as [(share of steps, multiplier)]: warm-up over a tenth, then linear decay
    to zero.

    Raises ValueError where it is not of this form: shares rise from 0 to 1, multipliers are finite
    and not negative.
    """
    points: Points = []
    for point in text.split():
        share, _, factor = point.partition(":")
        try:
            points.append((float(share), float(factor)))
        except ValueError:
            raise ValueError(f'schedule: expected share:multiplier pairs, got "{text}"') from None
    shares = [share for share, _ in points]
    if not points or shares != sorted(shares) or shares[0] != 0 or shares[-1] != 1:
        raise ValueError(f'schedule: shares must rise from 0 to 1, got "{text}"')
    if any(math.isnan(share) or not 0 <= factor < math.inf for share, factor in points):
        raise ValueError(f'schedule: multipliers must be finite numbers from 0 up, got "{text}"')
    return points


def multiplier(points: Points, step: int, steps: int) -> float:
    """The multiplier at the middle of step `step` (counted from 1) of `steps`, so that no step has
    a rate of 0."""
    share = min((step - 0.5) / max(steps, 1), 1.0)
    index = bisect_right([point[0] for point in points], share)
    if index == len(points):
        return points[-1][1]
    left, low = points[index - 1]
    right, high = points[index]
    return low + (high - low) * (share - left) / (right - left)
