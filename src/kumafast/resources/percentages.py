"""Numbers that may be written as text, as Kubernetes takes them: `50`, `"50"`, `"0.5"`.

In: such a number and its path. Out: its value, the rules that it breaks. Never: structure.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import TypeAlias

from kumafast.errors import Violation
from kumafast.resources.fields import Text, Whole

NumberText: TypeAlias = Whole | Text
"""A whole number, or any number as text."""

_PERCENT_MAX = 100


def decimal(number: int | str) -> Decimal | None:
    """Its value; None where it is no number."""
    try:
        value = Decimal(number)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def check_percentage(path: str, number: int | str | None) -> Iterator[Violation]:
    """A share in percent, or nothing."""
    if number is None:
        return
    value = decimal(number)
    if value is None:
        yield Violation(path, "string must be a valid number")
    elif not 0 <= value <= _PERCENT_MAX:
        yield Violation(path, "must be in inclusive range [0.0, 100.0]")
