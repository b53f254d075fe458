"""What an outbound leads to under the routes that apply to it.

In: what an outbound asks for, what each kind of route says. Out: a `Route`, a value, or None where it leads where it
asks for. Never: which routes apply (`Bindings`), endpoints, or what Envoy makes of it.

A destination of a TrafficRoute takes the tags of the outbound along: those that the route does not name, and the values
of those that it names as `*`. So one route for all services, to `kuma.io/service: "*"`, leaves everything as it was.

Requests and connections may lead to different places: MeshHTTPRoute is about the first, MeshTCPRoute about the second,
and about the first where there is no MeshHTTPRoute; its requests are then not read. Once a proxy has one of these, the
older TrafficRoute has no say in all that it could be about, whichever services it names (as in Kuma 2.14).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from kumafast.matching import http_rules
from kumafast.matching.backend_refs import Destination, Tags, backend
from kumafast.matching.backends import BackendPort
from kumafast.matching.facts import ANY
from kumafast.resources import catalog
from kumafast.resources.fields import FrozenMap
from kumafast.resources.policies.mesh_http_route import MIRROR, MeshHTTPRoute
from kumafast.resources.policies.mesh_tcp_route import MeshTCPRoute
from kumafast.resources.policies.traffic_route import TrafficRoute

Conf: TypeAlias = Mapping[str, Any]

KINDS = frozenset(kind.name for kind in catalog.POLICY_TYPES if kind.policy is not None and kind.policy.is_routing)
"""The kinds of policies that say what outbounds lead to."""
OLDER = TrafficRoute.type.name
"""That of them which gives way to the others."""

REQUESTS = MeshHTTPRoute.type.name
"""That of them which is about requests, and which policies may be about in turn."""

_CONNECTIONS = MeshTCPRoute.type.name
_NOTHING: FrozenMap[str, Any] = FrozenMap()
# What Envoy does where it is told nothing.
_DEFAULT_BALANCERS = (_NOTHING, FrozenMap(roundRobin=_NOTHING))


@dataclass(frozen=True, slots=True)
class Leg:
    """One of the destinations that traffic is split between, and its share."""

    destination: Destination
    weight: int = 1


@dataclass(frozen=True, slots=True)
class RequestRule:
    """Where requests that match lead, and what is changed in them; both as a TrafficRoute says it."""

    match: FrozenMap[str, Any]
    modify: FrozenMap[str, Any]
    legs: tuple[Leg, ...]

    @property
    def destinations(self) -> Iterator[Destination]:
        """All that it leads to."""
        yield from (leg.destination for leg in self.legs)


@dataclass(frozen=True, slots=True)
class HttpRule:
    """Where requests that match lead, and what is done with them; both as a MeshHTTPRoute says it.

    `matches` are all matches of its rule. `mirrors` are where copies go, one for each filter that asks for them, None
    where that finds nothing.
    """

    match: Conf
    matches: tuple[Conf, ...]
    filters: tuple[Conf, ...]
    legs: tuple[Leg, ...]
    mirrors: tuple[Destination | None, ...] = ()
    origin: str = ""
    """The MeshHTTPRoute that has the last word in it, by its name: policies may be about that."""

    @property
    def destinations(self) -> Iterator[Destination]:
        """All that it leads to, and where copies go."""
        yield from (leg.destination for leg in self.legs)
        yield from (each for each in self.mirrors if each is not None)


@dataclass(frozen=True, slots=True)
class Route:
    """Where an outbound leads: requests by the first rule that matches them, all else by `legs`.

    There are no legs where a rule takes all requests.
    """

    legs: tuple[Leg, ...]
    rules: tuple[RequestRule | HttpRule, ...] = ()
    load_balancer: FrozenMap[str, Any] = _NOTHING
    reads_requests: bool = True
    """False where requests are mere connections, whatever the protocol of the service."""
    connections: Route | None = None
    """Where it leads, in place of all this, while the service does not speak HTTP; None where that is the same."""

    @property
    def destinations(self) -> tuple[Destination, ...]:
        """All that it leads to in either case, each once, in its order."""
        led = [destination for rule in self.rules for destination in rule.destinations]
        led += [leg.destination for leg in self.legs]
        otherwise = () if self.connections is None else self.connections.destinations
        return tuple(dict.fromkeys((*led, *otherwise)))


def route(
    outbound: Destination,
    said: Mapping[str, Conf],
    newer: Set[str] = frozenset(),
    givers: Mapping[Any, str] = _NOTHING,
) -> Route | None:
    """Where an outbound leads, by what each kind of route says of what it asks for; None where that is there itself.

    TrafficRoutes are about tags. `newer` are the kinds with a targetRef that the proxy has, whatever these are about;
    `givers` the MeshHTTPRoutes that rules are from, by their matches.

    >>> to_version = {"destination": {"kuma.io/service": "*", "version": "1"}}
    >>> route((("kuma.io/service", "a"),), {"TrafficRoute": to_version}).destinations
    ((('kuma.io/service', 'a'), ('version', '1')),)
    """
    own = Route((Leg(outbound),))
    older = own if OLDER not in said or isinstance(outbound, BackendPort) else _of_traffic_route(outbound, said[OLDER])
    requests = own if REQUESTS in newer else older
    connections = own if _CONNECTIONS in newer else older
    if _CONNECTIONS in said:
        connections = Route(backends(said[_CONNECTIONS].get("backendRefs", ())) or own.legs)
        requests = replace(connections, reads_requests=False)
    if REQUESTS in said:
        requests = Route(*_of_http_route(own.legs, said[REQUESTS], givers))
    if requests == connections:
        return None if requests == own else requests
    return replace(requests, connections=connections)


def _of_traffic_route(outbound: Tags, conf: Conf) -> Route:
    rules = tuple(
        RequestRule(item.get("match", _NOTHING), item.get("modify", _NOTHING), legs)
        for item in conf.get("http", ())
        if (legs := _legs(outbound, item))
    )
    balancer = conf.get("loadBalancer", _NOTHING)
    own = (Leg(outbound),)
    return Route(_legs(outbound, conf) or own, rules, _NOTHING if balancer in _DEFAULT_BALANCERS else balancer)


def _of_http_route(
    own: tuple[Leg, ...], conf: Conf, givers: Mapping[Any, str]
) -> tuple[tuple[Leg, ...], tuple[HttpRule, ...]]:
    """The legs of all else, and the rules."""
    ordered = http_rules.in_order(conf)
    rules = (_http_rule(own, match, rule, givers.get(rule.get("matches"), "")) for match, rule in ordered)
    has_all = any(http_rules.takes_all(match) for match, _ in ordered)
    return () if has_all else own, tuple(rule for rule in rules if rule.legs)


def _http_rule(own: tuple[Leg, ...], match: Conf, rule: Conf, origin: str) -> HttpRule:
    default = rule.get("default", _NOTHING)
    filters = default.get("filters", ())
    refs = [(found, ref) for ref in default.get("backendRefs", ()) if (found := backend(ref)) is not None]
    mirrors = tuple(backend(each["requestMirror"]["backendRef"]) for each in filters if each["type"] == MIRROR)
    # Where nobody of those that are found has a share, the next rule is asked.
    legs = backends(ref for _, ref in refs) if refs else own
    return HttpRule(match, rule["matches"], filters, legs, mirrors, origin)


def gateway_rule(match: Conf, rule: Conf) -> HttpRule:
    """A match of a rule of a gateway, where there is no service that requests go to in any case."""
    return _http_rule((), match, rule, "")


def backends(refs: Iterable[Conf]) -> tuple[Leg, ...]:
    """Where references lead, with their shares; those that find nothing are left out."""
    return _split((found, ref.get("weight", 1)) for ref in refs if (found := backend(ref)) is not None)


def _legs(outbound: Tags, item: Conf) -> tuple[Leg, ...]:
    if "split" not in item:
        return (Leg(_tags(outbound, item["destination"])),) if "destination" in item else ()
    return _split((_tags(outbound, each.get("destination", {})), each.get("weight", 0)) for each in item["split"])


def _split(shares: Iterable[tuple[Destination, int]]) -> tuple[Leg, ...]:
    weights: dict[Destination, int] = {}
    for destination, weight in shares:
        weights[destination] = weights.get(destination, 0) + weight
    # Envoy knows no weight of 0: who has no share is not there.
    legs = tuple(Leg(destination, weight) for destination, weight in weights.items() if weight)
    # Where all goes to one the share makes no difference.
    return legs if len(legs) != 1 else (Leg(legs[0].destination),)


def _tags(outbound: Tags, wanted: Mapping[str, str]) -> Tags:
    named = {key: value for key, value in wanted.items() if value != ANY}
    return tuple(sorted({**dict(outbound), **named}.items()))


def there(route: Route | None, outbound: Destination, is_there: Callable[[BackendPort], bool]) -> Route | None:
    """The route without the services that are not there: where it led to nobody else it is as if nothing was said."""
    if route is None:
        return None
    gone = {each for each in route.destinations if isinstance(each, BackendPort) and not is_there(each)}
    if not gone:
        return route

    def kept(legs: tuple[Leg, ...]) -> tuple[Leg, ...]:
        left = _split((leg.destination, leg.weight) for leg in legs if leg.destination not in gone)
        return left or ((Leg(outbound),) if legs else ())

    def without(found: Route) -> Route:
        return replace(found, legs=kept(found.legs), rules=tuple(map(ruled, found.rules)))

    def ruled(rule: RequestRule | HttpRule) -> RequestRule | HttpRule:
        if isinstance(rule, RequestRule):
            return rule
        mirrors = tuple(None if each in gone else each for each in rule.mirrors)
        return replace(rule, legs=kept(rule.legs), mirrors=mirrors)

    connections = None if route.connections is None else without(route.connections)
    return replace(without(route), connections=connections)


def origins(routes: Iterable[tuple[Destination, Route | None]]) -> frozenset[str]:
    """The names of the MeshHTTPRoutes that rule requests of outbounds."""
    rules = (rule for _, route in routes if route is not None for rule in route.rules)
    return frozenset(rule.origin for rule in rules if isinstance(rule, HttpRule) and rule.origin)


def reached(routes: Iterable[tuple[Destination, Route | None]]) -> frozenset[Destination]:
    """All that outbounds may lead to, each by what it asks for and its route, whichever of the services are there."""
    found: set[Destination] = set()
    for asked, route in routes:
        if route is None:
            found.add(asked)
            continue
        found.update(route.destinations)
        if any(isinstance(each, BackendPort) for each in route.destinations):
            # Where none of its services is there, it leads to what is asked for.
            found.add(asked)
    return frozenset(found)
