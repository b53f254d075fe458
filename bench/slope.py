"""Whether something grows, told from samples of it over time.

In: seconds with values. Out: by how much the line through the lows rises after the warm-up. Never: a verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

WARM_UP = 0.25
"""Of a run, and what is not looked at: caches fill, and allocators take what they need at the busiest moment."""
# What may be added over the rest of it: 2 % or 2 MB of memory, whichever is more, 1 % of the objects.
GROWTH_MAX = 0.02
GROWTH_MAX_BYTES = 2 << 20
# Pushes of megabytes are under way in most seconds and no part of what stays: the least of each window counts.
WINDOWS = 8


def grown(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """By how much the line through what is least in each window after the warm-up rises, and their mean.

    Windows are of one length: the least of a few samples is no low.
    """
    points = points[int(len(points) * WARM_UP) :]
    window = max(1, len(points) // WINDOWS)
    starts = range(len(points) % window, len(points), window)
    points = [min(points[at : at + window], key=lambda point: point[1]) for at in starts]
    count = len(points)
    middle_x, middle_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    slope = sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0
    return slope * (points[-1][0] - points[0][0]), middle_y
