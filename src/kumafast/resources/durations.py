"""Durations as users write them: Go's `1h30m`, and the seconds of protobuf's JSON.

In: text. Out: the same duration in the one form that its kind of resource is shown in, or as a `timedelta`.
Never: what a duration may be; whether zero or less is allowed is a rule of its field.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Annotated

from pydantic import AfterValidator

from kumafast.memo import remembered
from kumafast.resources.fields import Text

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_SECOND = _NANOSECONDS["s"]
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_WHOLE = re.compile(rf"[-+]?(?:0|(?:{_PART.pattern})+)", re.ASCII)
_LENGTH_MAX = 64
_NANOSECONDS_MAX = 2**63 - 1
# Everybody writes the same few, and each merged conf is read anew.
_KNOWN_MAX = 4_096


@remembered(_KNOWN_MAX)
def nanoseconds(text: str) -> int:
    """The length of a duration such as `1h0m0.5s`. ValueError where it is none, or over Go's 292 years."""
    if len(text) > _LENGTH_MAX or not _WHOLE.fullmatch(text):
        raise ValueError("must be a duration such as 300ms, 15s or 1h30m")
    total = sum((Decimal(number) * _NANOSECONDS[unit] for number, unit in _PART.findall(text)), Decimal(0))
    length = int(total)
    if length > _NANOSECONDS_MAX:
        raise ValueError("must be a duration of at most 292 years")
    return -length if text.startswith("-") else length


@remembered(_KNOWN_MAX)
def as_timedelta(text: str) -> timedelta:
    """A duration in microseconds, rounded away from zero: Envoy takes zero for no limit at all."""
    length = nanoseconds(text)
    microseconds = int((Decimal(abs(length)) / 1000).to_integral_value(ROUND_CEILING))
    return timedelta(microseconds=-microseconds if length < 0 else microseconds)


@remembered(_KNOWN_MAX)
def go_text(length: int) -> str:
    """Nanoseconds as Go prints them.

    >>> go_text(nanoseconds("101s")), go_text(nanoseconds("1h")), go_text(nanoseconds(".5s")), go_text(0)
    ('1m41s', '1h0m0s', '500ms', '0s')
    """
    if length < 0:
        return f"-{go_text(-length)}"
    if length < _SECOND:
        for unit in ("ms", "µs", "ns"):
            if length >= _NANOSECONDS[unit]:
                return f"{_decimal(length, _NANOSECONDS[unit])}{unit}"
        return "0s"
    minutes, rest = divmod(length, _NANOSECONDS["m"])
    seconds = f"{_decimal(rest, _SECOND)}s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def proto_text(length: int) -> str:
    """Nanoseconds as protobuf's JSON writes them: seconds with three, six or nine decimals, or none.

    >>> proto_text(nanoseconds("1h")), proto_text(nanoseconds("300ms"))
    ('3600s', '0.300s')
    """
    if length < 0:
        return f"-{proto_text(-length)}"
    seconds, rest = divmod(length, _SECOND)
    fraction = f"{rest:09d}"
    while fraction.endswith("000"):
        fraction = fraction[:-3]
    return f"{seconds}.{fraction}s" if fraction else f"{seconds}s"


def _decimal(length: int, unit: int) -> str:
    whole, rest = divmod(length, unit)
    fraction = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0") if unit > 1 else ""
    return f"{whole}.{fraction}" if fraction else str(whole)


GoDuration = Annotated[Text, AfterValidator(lambda text: go_text(nanoseconds(text)))]
"""A duration that is shown as Go prints it; that of the targetRef policies."""

ProtoDuration = Annotated[Text, AfterValidator(lambda text: proto_text(nanoseconds(text)))]
"""A duration that is shown in seconds; that of the legacy policies."""
