"""RateLimit: how many requests of some clients an instance of a service takes in a time.

In: documents in Kuma's 2.14 form. Out: `RateLimit`, frozen, and the rules that it breaks. Never: what Envoy makes of
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import ClassVar

from kumafast.errors import Violation
from kumafast.resources.connection_policy import ConnectionPolicy, check_selectors
from kumafast.resources.durations import ProtoDuration, nanoseconds
from kumafast.resources.fields import Count, Flag, Text
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.validation import key_of

_INTERVAL_MIN = 50_000_000
"""Nanoseconds: Envoy fills no bucket more often."""

_STATUSES = frozenset(HTTPStatus) - {101, 102, 103, 418, 425, 451}
"""Those that Envoy has a name for."""


class Header(Frozen):
    """A header of the answer, and whether it stands beside one that is there already instead of in its place."""

    key: Text = ""
    value: Text = ""
    append: Flag | None = None


class OnRateLimit(Frozen):
    """How what is too much is answered: 429 where no status is named."""

    status: Count | None = None
    headers: tuple[Header, ...] = ()


class Http(Frozen):
    """So many requests in a time."""

    requests: Count = 0
    interval: ProtoDuration | None = None
    on_rate_limit: OnRateLimit | None = None


class Conf(Frozen):
    """What holds for requests; connections have no limit."""

    http: Http | None = None


class RateLimit(ConnectionPolicy):
    """Limits of how much some dataplanes may ask of an inbound that speaks HTTP. All that match an inbound count."""

    type: ClassVar[ResourceType] = ResourceType(
        name="RateLimit",
        scope=Scope.MESH,
        path="rate-limits",
        singular="Rate Limit",
        plural="Rate Limits",
        is_in_federation=True,
        policy=PolicyTraits(
            order=900,
            successor="MeshRateLimit",
            is_by_inbound=True,
            is_listed=True,
            asks_sender=True,
            counts_outside=True,
        ),
    )

    conf: Conf | None = None

    def settings(self) -> Conf | None:
        """The limit that it sets for each of its sources."""
        return None if self.conf is None or self.conf.http is None else self.conf

    def violations(self) -> Iterator[Violation]:
        """Every rule of rate limits that this one breaks, in the order of Kuma's checks."""
        yield from check_selectors("sources", self.sources)
        yield from check_selectors("destinations", self.destinations)
        if self.conf is None:
            yield Violation("conf", "must have conf")
        elif self.conf.http is not None:
            yield from _check_http("conf.http", self.conf.http)


def _check_http(path: str, http: Http) -> Iterator[Violation]:
    if not http.requests:
        yield Violation(f"{path}.requests", "requests must be set")
    if http.interval is None:
        yield Violation(f"{path}.interval", "interval must be set")
    elif nanoseconds(http.interval) < _INTERVAL_MIN:
        # Kuma lets this pass, and its Envoys refuse the listener.
        yield Violation(f"{path}.interval", "must be at least 50ms")
    if http.on_rate_limit is None:
        return
    for i, header in enumerate(http.on_rate_limit.headers):
        where = key_of(f"{path}.onRateLimit.header", str(i))
        if not header.key:
            yield Violation(where, "key must be set")
        if not header.value:
            yield Violation(where, "value must be set")
    status = http.on_rate_limit.status
    if status and status not in _STATUSES:
        yield Violation(f"{path}.onRateLimit.status", "http status code is incorrect")
