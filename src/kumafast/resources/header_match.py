"""Conditions on a header of a request or an answer, as policies with a `targetRef` write them.

In: documents. Out: frozen values, and the rules that they break. Never: what Envoy makes of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from kumafast.errors import Violation
from kumafast.resources.fields import Text
from kumafast.resources.resource import Frozen

_NAME = re.compile(r"[a-z0-9!#$%&'*+\-.^_\x60|~]+")
_LENGTH_MAX = 256


class HeaderMatch(Frozen):
    """A header of a name that has a value, or is there, or is not."""

    type: Literal["Exact", "Present", "RegularExpression", "Absent", "Prefix"] = "Exact"
    name: Text = ""
    value: Text = ""

    def violations(self, path: str) -> Iterator[Violation]:
        """Every rule of headers that this one breaks."""
        yield from check_header_name(f"{path}.name", self.name)


def check_header_name(path: str, name: str) -> Iterator[Violation]:
    """The name of a header, in lower case."""
    if not name:
        yield Violation(path, "in body should be at least 1 chars long")
    elif len(name) > _LENGTH_MAX:
        yield Violation(path, "in body should be at most 256 chars long")
    elif not _NAME.fullmatch(name):
        yield Violation(path, "in body should match '^[a-z0-9!#$%&'*+\\-.^_\\x60|~]+$'")


class Header(Frozen):
    """A header and its value."""

    name: Text = ""
    value: Text = ""


class HeaderModifier(Frozen):
    """Headers that take the place of those of their name, and headers that stand beside them."""

    set: tuple[Header, ...] | None = None
    add: tuple[Header, ...] | None = None

    def violations(self, path: str) -> Iterator[Violation]:
        """Every rule of headers that these break."""
        for list_name, headers in (("set", self.set), ("add", self.add)):
            for i, header in enumerate(headers or ()):
                yield from check_header_name(f"{path}.{list_name}[{i}].name", header.name)
