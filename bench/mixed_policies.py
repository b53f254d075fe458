"""A thousand policies of all kinds over a regular mesh, and whom one more of each kind concerns, by plain loops.

In: the policies of a regular mesh. Out: those with others of each kind, each about one service; for a policy more the
names of those that get something else by it. Never: an index, a look at what the code under test says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any, cast

from bench.regular_mesh import dataplane, policies
from tests.oracles import policies_naive
from tests.oracles.matching_naive import matches, matches_one

from kumafast.resources import Dataplane, Resource, parse, with_defaults
from kumafast.resources.connection_policy import ConnectionPolicy
from kumafast.resources.dataplane_policy import DataplanePolicy

POLICIES = 1_000

Document = dict[str, Any]
_ANYBODY: Document = {"match": {"kuma.io/service": "*"}}
_CREATED = datetime(2026, 1, 1, tzinfo=UTC)
_HTTP = {"kuma.io/protocol": "http"}


def service(number: int) -> str:
    """The service with a number."""
    return f"service-{number:05}"


def _match(number: int, **more: str) -> Document:
    return {"match": {"kuma.io/service": service(number), **more}}


def _patched(seconds: int) -> Document:
    change = {"operation": "patch", "match": {"origin": "outbound"}, "value": f"connectTimeout: {seconds}s"}
    return {"imports": ["default-proxy"], "modifications": [{"cluster": change}]}


def _between(kind: str, **conf: Any) -> Callable[[int], Document]:
    """Policies of a kind from anybody to a service."""
    return lambda number: {"type": kind, "sources": [_ANYBODY], "destinations": [_match(number)], "conf": conf}


def _of_service(kind: str, **spec: Any) -> Callable[[int], Document]:
    """Policies of a kind for the instances of a service."""
    return lambda number: {
        "type": kind,
        "spec": {"targetRef": {"kind": "MeshService", "name": service(number)}, **spec},
    }


def _selecting(kind: str, conf: Callable[[int], Document]) -> Callable[[int], Document]:
    """Policies of a kind for the instances of a service, as the older family chooses them."""
    return lambda number: {"type": kind, "selectors": [_match(number)], "conf": conf(number)}


def _to_all(conf: Document) -> list[Document]:
    return [{"targetRef": {"kind": "Mesh"}, "default": conf}]


def _injection(number: int) -> Document:
    conf = {"abort": {"percentage": 1, "httpStatus": 503}}
    ends = {"sources": [_match(number + 1)], "destinations": [_match(number, **_HTTP)]}
    return {"type": "FaultInjection", **ends, "conf": conf}


def _limit(number: int) -> Document:
    conf = {"http": {"requests": number + 1, "interval": "1s"}}
    return {"type": "RateLimit", "sources": [_match(number + 1)], "destinations": [_match(number)], "conf": conf}


def _route(number: int) -> Document:
    conf = {"destination": _match(number)["match"], "loadBalancer": {"random": {}}}
    return {"type": "TrafficRoute", "sources": [_ANYBODY], "destinations": [_match(number)], "conf": conf}


CHECK = {"interval": "10s", "timeout": "2s", "unhealthyThreshold": 3, "healthyThreshold": 1}

_FORMS: tuple[Callable[[int], Document], ...] = (
    _between("CircuitBreaker", thresholds={"maxRequests": 7}),
    _between("HealthCheck", **CHECK, tcp={}),
    _between("Retry", http={"numRetries": 7}),
    _between("Timeout", connectTimeout="7s"),
    lambda number: {"type": "TrafficLog", "sources": [_ANYBODY], "destinations": [_match(number)]},
    lambda number: {"type": "TrafficPermission", "sources": [_ANYBODY], "destinations": [_match(number)]},
    _route,
    _injection,
    _limit,
    _selecting("TrafficTrace", lambda _: {}),
    _selecting("ProxyTemplate", lambda number: _patched(1 + number % 50)),
    _of_service("MeshTimeout", rules=[{"default": {"idleTimeout": "7s"}}]),
    _of_service("MeshTrafficPermission", **{"from": _to_all({"action": "Allow"})}),
    _of_service("MeshCircuitBreaker", rules=[{"default": {"connectionLimits": {"maxRequests": 7}}}]),
)


def mixed_policies() -> list[Resource]:
    """1,000 policies: those of the regular mesh, and as many of each kind, each about a service of its own."""
    made = policies()
    for number in count():
        for form in _FORMS:
            if len(made) == POLICIES:
                return made
            made.append(_written(f"mixed-{len(made):03}", form(number)))
    raise AssertionError


def _written(name: str, document: Document) -> Resource:
    return with_defaults(parse({"mesh": "default", "name": name, **document}), zone="default")


# One policy more of a kind, and whom it concerns.

TARGET, SENDER = 500, 100
"""A service that the mixed policies say nothing about, and one that reaches it in a mesh of 10,000."""
TEAM = {"kuma.io/service": "*", "team": "team-00"}
"""Those that reach it are this team's, among others."""


def one_more() -> dict[str, Resource]:
    """A policy of each kind of the older family, more exact than those that there are, about few."""
    ends = {"sources": [{"match": TEAM}], "destinations": [_match(TARGET)]}
    from_one = {"sources": [_match(SENDER)], "destinations": [_match(TARGET, **_HTTP)]}
    split = [{"weight": 9, "destination": {**_match(TARGET)["match"], "version": version}} for version in ("v0", "v1")]
    forms: dict[str, Document] = {
        "CircuitBreaker": {**ends, "conf": {"thresholds": {"maxRequests": 99}}},
        "FaultInjection": {**from_one, "conf": {"abort": {"percentage": 99, "httpStatus": 503}}},
        "HealthCheck": {**ends, "conf": {**CHECK, "interval": "99s"}},
        "ProxyTemplate": {"selectors": [{"match": TEAM}], "conf": _patched(99)},
        "RateLimit": {**from_one, "conf": {"http": {"requests": 99, "interval": "1s"}}},
        "Retry": {**ends, "conf": {"http": {"numRetries": 99}}},
        "Timeout": {**ends, "conf": {"connectTimeout": "99s"}},
        "TrafficLog": ends,
        "TrafficPermission": {**ends, "destinations": [_match(TARGET)]},
        "TrafficRoute": {**ends, "conf": {"split": split}},
        "TrafficTrace": {"selectors": [{"match": TEAM}]},
    }
    return {kind: _written("one-more", {"type": kind, **form}) for kind, form in forms.items()}


COME_TO_NOTHING = {
    "Timeout": "a MeshTimeout that a user wrote is for everybody",
    "TrafficLog": "the mesh has no backend",
    "TrafficPermission": "the mesh has no TLS",
    "TrafficTrace": "the mesh has no backend",
}


def concerned(policy: Resource, written: Iterable[Resource], size: int) -> list[str]:
    """The names of those that get something else by a policy more, in order."""
    if policy.type.name in COME_TO_NOTHING:
        return []
    alike = [each for each in written if each.type == policy.type]
    if isinstance(policy, DataplanePolicy):
        found = _of_selected(policy, cast(list[DataplanePolicy], alike), size)
    else:
        assert isinstance(policy, ConnectionPolicy)
        assert policy.type.policy is not None
        of_kind = _of_inbounds if policy.type.policy.is_by_inbound else _of_outbounds
        found = of_kind(policy, cast(list[ConnectionPolicy], alike), size)
    return sorted(each.name for each in found)


def _all(size: int) -> Iterator[Dataplane]:
    return (dataplane(number, size) for number in range(size))


def _tags(proxy: Dataplane) -> list[dict[str, str]]:
    return [dict(inbound.tags) for inbound in proxy.inbounds]


def _dated(several: Sequence[Any]) -> list[Any]:
    return [(each, _CREATED) for each in several]


def _of_outbounds(policy: ConnectionPolicy, alike: list[ConnectionPolicy], size: int) -> Iterator[Dataplane]:
    for proxy in _all(size):
        if not any(matches_one(source.match, _tags(proxy)) for source in policy.sources):
            continue
        for outbound in proxy.outbounds:
            was = policies_naive.legacy_winner(_dated(alike), proxy, outbound.service)
            now = policies_naive.legacy_winner(_dated([*alike, policy]), proxy, outbound.service)
            if (None if was is None else was.settings()) != (None if now is None else now.settings()):
                yield proxy
                break


def _of_inbounds(policy: ConnectionPolicy, alike: list[ConnectionPolicy], size: int) -> Iterator[Dataplane]:
    """Those that take requests under it, and those that have to say who they are: none of them did before."""
    about = {destination.match["kuma.io/service"] for destination in policy.destinations}
    assert not any(each.match.get("kuma.io/service") in about for other in alike for each in other.destinations)
    for proxy in _all(size):
        takes = any(matches(each.match, tags) for each in policy.destinations for tags in _tags(proxy))
        is_sender = any(matches_one(source.match, _tags(proxy)) for source in policy.sources)
        if takes or (is_sender and any(outbound.service in about for outbound in proxy.outbounds)):
            yield proxy


def _of_selected(policy: DataplanePolicy, alike: list[DataplanePolicy], size: int) -> Iterator[Dataplane]:
    for proxy in _all(size):
        if any(matches_one(selector.match, _tags(proxy)) for selector in policy.selectors):
            now = policies_naive.dataplane_winner(_dated([*alike, policy]), proxy)
            if now is policy:
                yield proxy


def selected(policy: Resource, size: int) -> int:
    """How many a policy has to do with, at either end."""
    document: Any = policy
    ends = [
        *getattr(document, "sources", ()),
        *getattr(document, "destinations", ()),
        *getattr(document, "selectors", ()),
    ]
    return sum(1 for proxy in _all(size) if any(matches_one(each.match, _tags(proxy)) for each in ends))
