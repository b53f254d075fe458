"""How the gates measure: the best of several runs, in CPU time, so that a busy neighbour does not count.

In: a function. Out: seconds, or the slope of seconds over sizes. Never: an average; noise only ever adds.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence


def best(function: Callable[[], object], rounds: int = 5, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of the fastest of `rounds` calls, the collector off as in `timeit`."""
    seconds = math.inf
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            begin = clock()
            function()
            seconds = min(seconds, clock() - begin)
    finally:
        gc.enable()
    return seconds


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent b of seconds = a · size**b, by least squares on log-log: 0 is flat, 1 is linear."""
    xs, ys = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / sum((x - x_mean) ** 2 for x in xs)
