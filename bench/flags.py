"""Types of flags that say what is wrong with a value, rather than fail later with it.

In: what was typed. Out: a number. Never: a default.
"""

from __future__ import annotations

import argparse
import math

_MESH_STEP = 50


def positive(text: str) -> float:
    """A number of seconds, or of something a second.

    >>> positive("0.5")
    0.5
    """
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def count(text: str) -> int:
    """How many of something there are: one at least.

    >>> count("50")
    50
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def mesh_size(text: str) -> int:
    """Dataplanes of a regular mesh, in which services have ten instances and each dataplane five outbounds.

    >>> mesh_size("1000")
    1000
    """
    value = count(text)
    if value % _MESH_STEP:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of {_MESH_STEP}")
    return value
