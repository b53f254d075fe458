"""Host names of gateways: whole ones, wildcards in the place of the first labels, and all of them.

In: names as users wrote them. Out: which of them is the more specific, what two have in common, violations.
Never: an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from kumafast.errors import Violation

ANY: Final = "*"
"""All host names."""

_WILDCARD = "*."
_LENGTH_MAX = 253
_DOMAIN = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62})(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62}))*\.?")


def check_hostname(path: str, hostname: str) -> Iterator[Violation]:
    """A host name or a wildcard; nothing is as good as all."""
    if hostname in ("", ANY):
        return
    if len(hostname) > _LENGTH_MAX:
        yield Violation(path, f"must be at most {_LENGTH_MAX} characters")
    elif hostname.startswith("*"):
        if not hostname.startswith(_WILDCARD) or not _DOMAIN.fullmatch(hostname.removeprefix(_WILDCARD)):
            yield Violation(path, "invalid wildcard domain")
    elif not _DOMAIN.fullmatch(hostname):
        yield Violation(path, "invalid hostname")


def contains(broad: str, narrow: str) -> bool:
    """Whether every host that the one means the other means too.

    >>> contains("*.example.com", "a.b.example.com"), contains("*.example.com", "example.com"), contains("*", "*.com")
    (True, False, True)
    """
    if broad in (ANY, narrow):
        return True
    return broad.startswith(_WILDCARD) and narrow.endswith(broad[1:])


def common(one: str, other: str) -> str | None:
    """The hosts that both mean; None where there are none.

    >>> common("*.example.com", "a.example.com"), common("a.com", "b.com")
    ('a.example.com', None)
    """
    if contains(one, other):
        return other
    return one if contains(other, one) else None


def breadth(hostname: str) -> tuple[bool, bool, int, str]:
    """A key by which the more specific comes first: whole names, then the longer wildcards, then all.

    >>> sorted(["*", "*.com", "a.com", "*.a.com"], key=breadth)
    ['a.com', '*.a.com', '*.com', '*']
    """
    return hostname == ANY, hostname.startswith("*"), -len(hostname), hostname
