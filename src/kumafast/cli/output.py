"""Put answers into words: tables like kumactl's, YAML, JSON, durations.

In: plain JSON values, rows of text. Out: text. Never: requests, colours or control codes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import yaml

from kumafast.cli.scalars import add_resolvers

# kumactl's table writer: columns at least this wide, and this much between the widest cell and the next column.
_COLUMN_MIN = 6
_PADDING = 3


class Format(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    YAML = "yaml"
    JSON = "json"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under their headers, in aligned columns, each line without blanks at its end."""
    lines = [list(headers), *([str(cell) for cell in row] for row in rows)]
    widths = [max(_COLUMN_MIN, max(len(line[column]) for line in lines) + _PADDING) for column in range(len(headers))]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def formatted(value: object, form: Format) -> str:
    """A value as YAML or JSON, with the keys in the order in which the server sent them."""
    if form is Format.JSON:
        return json.dumps(value, indent=2, ensure_ascii=False)
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 30).rstrip("\n")


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes whatever kumactl or `kumafast apply` would not read as text, such as `y` and `1e3`."""


add_resolvers(_Dumper)


def age(moment: str | None, *, now: datetime | None = None) -> str:
    """The time since an RFC 3339 moment in its greatest unit, as kumactl says it: `5s`, `3m`, `2h`, `never`."""
    then = parse_time(moment)
    if then is None:
        return "never"
    seconds = max(0, int(((now or datetime.now(UTC)) - then).total_seconds()))
    for limit, unit, letter in ((60, 1, "s"), (3600, 60, "m"), (86400, 3600, "h"), (365 * 86400, 86400, "d")):
        if seconds < limit:
            return f"{seconds // unit}{letter}"
    return f"{seconds // (365 * 86400)}y"


def parse_time(moment: str | None) -> datetime | None:
    """An RFC 3339 moment, of which `datetime` keeps the microseconds; None for what is none, and for Go's zero time."""
    if not moment or moment.startswith("0001-01-01"):
        return None
    text = moment.replace("Z", "+00:00")
    head, dot, tail = text.partition(".")
    if dot:
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        text = f"{head}.{digits[:6].ljust(6, '0')}{tail[len(digits) :]}"
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        return None
    return then if then.tzinfo else then.replace(tzinfo=UTC)


def tags_text(tag_sets: Iterable[Mapping[str, str]]) -> str:
    """The tags of several inbounds as kumactl writes them: `kuma.io/service=web version=v1,v2`."""
    values: dict[str, set[str]] = {}
    for tags in tag_sets:
        for key, value in tags.items():
            values.setdefault(key, set()).add(str(value))
    return " ".join(f"{key}={','.join(sorted(values[key]))}" for key in sorted(values))


def tag_sets_of(dataplane: Mapping[str, Any]) -> list[Mapping[str, str]]:
    """The tags of each inbound of a Dataplane document, and of its gateway."""
    networking = dataplane.get("networking") or {}
    gateway = networking.get("gateway") or {}
    return [inbound.get("tags") or {} for inbound in networking.get("inbound") or []] + [gateway.get("tags") or {}]
