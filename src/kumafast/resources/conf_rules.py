"""The rules that confs of policies with a `targetRef` share: durations, counts, percentages, statuses, addresses.

In: values and the path of the field that they stand in. Out: violations, word for word those of Kuma 2.14.
Never: the rules of policies with sources and destinations, which Kuma words in another way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated

from pydantic import PlainValidator, WithJsonSchema

from kumafast.errors import Violation
from kumafast.resources.durations import nanoseconds
from kumafast.resources.fields import TEXT_LENGTH_MAX
from kumafast.resources.resource import Frozen

MUST_BE_DEFINED = "must be defined"
MUST_NOT_BE_DEFINED = "must not be defined"
MUST_NOT_BE_EMPTY = "must not be empty"

_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1
_DECIMAL = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,2})?", re.ASCII)
_STATUSES = range(100, 600)
_URL = re.compile(
    r"((ftp|tcp|udp|wss?|https?)://)?([^\s@/]+@)?"
    r"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9]([a-zA-Z0-9_-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9_-]+)*\.?)"
    r"(:[0-9]{1,5})?([/?#]\S*)?"
)


def _int_or_text(value: object) -> int | str:
    if isinstance(value, str) and len(value) <= TEXT_LENGTH_MAX:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and _INT_MIN <= value <= _INT_MAX:
        return value
    raise ValueError("must be a whole number, or a decimal number as a text")


DecimalNumber = Annotated[
    int | str,
    PlainValidator(_int_or_text),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
]
"""A whole number, or a decimal one as a text, kept as it is written; whether a text is a number is a rule."""


def decimal(value: int | str) -> Decimal | None:
    """A number as it was meant; None where a text is none.

    >>> decimal(5), decimal("60.1"), decimal("many")
    (Decimal('5'), Decimal('60.1'), None)
    """
    if isinstance(value, int):
        return Decimal(value)
    return Decimal(value) if _DECIMAL.fullmatch(value) else None


def check_any(path: str, section: Frozen, *names: str) -> Iterator[Violation]:
    """At least one of the fields is set."""
    if all(getattr(section, name) is None for name in _attributes(section, names)):
        yield Violation(path, f"must have at least one defined: {', '.join(names)}")


def check_durations(path: str, section: Frozen, *names: str) -> Iterator[Violation]:
    """Durations that, where they are set, are more than zero."""
    for name, attribute in zip(names, _attributes(section, names), strict=True):
        value = getattr(section, attribute)
        if value is not None and nanoseconds(value) <= 0:
            yield Violation(f"{path}.{name}", "must be greater than zero when defined")


def check_counts(path: str, section: Frozen, *names: str) -> Iterator[Violation]:
    """Counts that, where they are set, are more than zero."""
    for name, attribute in zip(names, _attributes(section, names), strict=True):
        if getattr(section, attribute) == 0:
            yield Violation(f"{path}.{name}", "must be greater than 0")


def check_percentage(path: str, value: int | str | None) -> Iterator[Violation]:
    """A percentage, where it is set."""
    if value is None:
        return
    number = decimal(value)
    if number is None:
        yield Violation(path, "string must be a valid number")
    elif not 0 <= number <= 100:
        yield Violation(path, "must be in inclusive range [0.0, 100.0]")


def check_whole_percentage(path: str, value: int | None) -> Iterator[Violation]:
    """A percentage without decimals, where it is set."""
    if value is not None and not 0 <= value <= 100:
        yield Violation(path, "must be in inclusive range [0, 100]")


def check_status(path: str, status: int) -> Iterator[Violation]:
    """The status of an answer."""
    if status not in _STATUSES:
        yield Violation(path, "must be in inclusive range [100, 599]")


def is_file_path(text: str) -> bool:
    """Whether a text is an absolute path."""
    return text.startswith("/") and "\0" not in text


def is_url(text: str) -> bool:
    """Whether a text is a URL, or an address without a scheme: `logs.example`, `127.0.0.1:5000`.

    Without a scheme and a port it needs a dot, as Kuma's library for it has it.
    """
    match = _URL.fullmatch(text)
    if match is None or len(text) <= 3:
        return False
    return "." in text or ":" in text


def _attributes(section: Frozen, names: tuple[str, ...]) -> list[str]:
    by_alias = {field.alias: attribute for attribute, field in type(section).model_fields.items()}
    return [by_alias[name] for name in names]
