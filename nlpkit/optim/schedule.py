"""A learning-rate schedule as a piecewise-linear function of the share of steps done."""

from __future__ import annotations

from bisect import bisect_right

from nlpkit.errors import SettingsError

Points = list[tuple[float, float]]


def parse_schedule(text: str) -> Points:
    """`"0:0 0.1:1 1:0"` as [(share of steps, multiplier)]: warm-up over a tenth, then linear decay
    to zero."""
    try:
        points = [tuple(map(float, point.split(":"))) for point in text.split()]
        shares = [share for share, _ in points]
    except ValueError:
        raise SettingsError(
            f'train.schedule: expected share:multiplier pairs, got "{text}"'
        ) from None
    if not points or shares != sorted(shares) or shares[0] != 0 or shares[-1] != 1:
        raise SettingsError(f'train.schedule: shares must rise from 0 to 1, got "{text}"')
    return points  # type: ignore[return-value]


def multiplier(points: Points, step: int, steps: int) -> float:
    """The multiplier at the middle of step `step` (counted from 1) of `steps`, so that no step has
    a rate of 0."""
    share = min((step - 0.5) / max(steps, 1), 1.0)
    index = bisect_right([point[0] for point in points], share)
    if index == len(points):
        return points[-1][1]
    (left, low), (right, high) = points[index - 1], points[index]
    return low + (high - low) * (share - left) / (right - left)
