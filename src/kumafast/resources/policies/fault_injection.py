"""FaultInjection: requests of some clients that are delayed, refused or answered slowly, to see what becomes of it.

In: documents in Kuma's 2.14 form. Out: `FaultInjection`, frozen, and the rules that it breaks. Never: what Envoy makes
of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import ClassVar

from kumafast.errors import Violation
from kumafast.resources.connection_policy import ConnectionPolicy, Selector, check_positive, check_selectors
from kumafast.resources.durations import ProtoDuration
from kumafast.resources.fields import Count, Number, Tags, Text
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.tags import PROTOCOL_TAG
from kumafast.resources.validation import check_selector_entries, key_of

_PROTOCOLS = ("http", "http2", "grpc")
_PERCENT_MAX = 100
_LIMIT = re.compile(r"([0-9]{1,18}) ?([kmg])bps", re.ASCII | re.IGNORECASE)
_KBPS = {"k": 1, "m": 1_000, "g": 1_000_000}
_UINT64_MAX = 2**64 - 1


class Delay(Frozen):
    """A share of the requests, in percent, that wait for so long."""

    percentage: Number | None = None
    value: ProtoDuration | None = None


class Abort(Frozen):
    """A share of the requests, in percent, that are answered with a status at once."""

    percentage: Number | None = None
    http_status: Count | None = None


class ResponseBandwidth(Frozen):
    """A share of the answers, in percent, that come so slowly: `50mbps`."""

    percentage: Number | None = None
    limit: Text | None = None


class Faults(Frozen):
    """What goes wrong."""

    delay: Delay | None = None
    abort: Abort | None = None
    response_bandwidth: ResponseBandwidth | None = None


class Conf(Faults):
    """What goes wrong, and for requests from whom: those with all tags of one of the sources."""

    sources: tuple[Tags, ...] = ()


class FaultInjection(ConnectionPolicy):
    """Faults in requests from some dataplanes to some inbounds that speak HTTP."""

    type: ClassVar[ResourceType] = ResourceType(
        name="FaultInjection",
        scope=Scope.MESH,
        path="fault-injections",
        singular="Fault Injection",
        plural="Fault Injections",
        is_in_federation=True,
        policy=PolicyTraits(order=800, successor="MeshFaultInjection", is_by_inbound=True, asks_sender=True),
    )

    conf: Faults | None = None

    def settings(self) -> Conf | None:
        """The faults that it sets, and for whom."""
        faults = self.conf or Faults()
        return Conf(
            delay=faults.delay,
            abort=faults.abort,
            response_bandwidth=faults.response_bandwidth,
            sources=tuple(dict.fromkeys(source.match for source in self.sources)),
        )

    def violations(self) -> Iterator[Violation]:
        """Every rule of fault injections that this one breaks, in the order of Kuma's checks."""
        yield from check_selectors("sources", self.sources)
        yield from _check_destinations("destinations", self.destinations)
        faults = self.conf or Faults()
        delay, abort, bandwidth = faults.delay, faults.abort, faults.response_bandwidth
        if delay in (None, Delay()) and abort in (None, Abort()) and bandwidth in (None, ResponseBandwidth()):
            yield Violation("conf", "must have at least one of the faults configured")
        if delay not in (None, Delay()):
            yield from _check_delay("conf.delay", delay)
        if abort not in (None, Abort()):
            yield from _check_abort("conf.abort", abort)
        if bandwidth not in (None, ResponseBandwidth()):
            yield from _check_bandwidth("conf.responseBandwidth", bandwidth)


def kilobits(limit: str) -> int | None:
    """A bandwidth such as `50mbps` in kilobits a second; None where it is none.

    >>> kilobits("50mbps"), kilobits("2 Gbps"), kilobits("0kbps")
    (50000, 2000000, None)
    """
    match = _LIMIT.fullmatch(limit)
    if match is None:
        return None
    value = int(match[1]) * _KBPS[match[2].lower()]
    return value if 0 < value <= _UINT64_MAX else None


def _check_destinations(path: str, selectors: Sequence[Selector]) -> Iterator[Violation]:
    if not selectors:
        yield Violation(path, "must have at least one element")
    for i, selector in enumerate(selectors):
        where = f"{path}[{i}].match"
        if not selector.match:
            yield Violation(where, "must have at least one tag")
        if PROTOCOL_TAG not in selector.match:
            yield Violation(where, "protocol must be specified")
        elif selector.match[PROTOCOL_TAG] not in _PROTOCOLS:
            yield Violation(key_of(where, PROTOCOL_TAG), f"must be one of the [{', '.join(_PROTOCOLS)}]")
        yield from check_selector_entries(where, selector.match)


def _check_delay(path: str, delay: Delay) -> Iterator[Violation]:
    yield from _check_percentage(path, delay.percentage)
    if delay.value is None:
        yield Violation(f"{path}.value", "cannot be empty")
    # Kuma lets no time at all pass, and its Envoys refuse the listener.
    yield from check_positive(path, delay, "value")


def _check_abort(path: str, abort: Abort) -> Iterator[Violation]:
    yield from _check_percentage(path, abort.percentage)
    if abort.http_status is None:
        yield Violation(f"{path}.httpStatus", "cannot be empty")
    elif abort.http_status not in list(HTTPStatus) or abort.http_status < HTTPStatus.OK:
        # That an answer begins with 100 is no answer, and Envoy refuses to give it.
        yield Violation(f"{path}.httpStatus", "http status code is incorrect")


def _check_bandwidth(path: str, bandwidth: ResponseBandwidth) -> Iterator[Violation]:
    yield from _check_percentage(path, bandwidth.percentage)
    if bandwidth.limit is None:
        yield Violation(f"{path}.limit", "cannot be empty")
    elif kilobits(bandwidth.limit) is None:
        yield Violation(f"{path}.limit", "has to be in kbps/mbps/gbps units")


def _check_percentage(path: str, percentage: float | None) -> Iterator[Violation]:
    if percentage is None:
        yield Violation(f"{path}.percentage", "cannot be empty")
    elif not 0 <= percentage <= _PERCENT_MAX:
        yield Violation(f"{path}.percentage", "has to be in [0.0 - 100.0] range")
