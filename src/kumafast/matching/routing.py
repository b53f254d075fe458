"""What an outbound leads to under the route that applies to it.

In: the tags of an outbound, the conf of a route. Out: a `Route`, a value, or None where it leads where its tags say.
Never: which route applies (`Bindings`), endpoints, or what Envoy makes of it.

A destination takes the tags of the outbound along: those that the route does not name, and the values of those that it
names as `*`. So one route for all services, to `kuma.io/service: "*"`, leaves everything as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from kumafast.matching.backends import BackendPort
from kumafast.matching.facts import ANY
from kumafast.resources import catalog
from kumafast.resources.fields import FrozenMap

Conf: TypeAlias = Mapping[str, Any]
Tags: TypeAlias = tuple[tuple[str, str], ...]
"""Tags as pairs, sorted by key."""

KINDS = frozenset(kind.name for kind in catalog.POLICY_TYPES if kind.policy is not None and kind.policy.is_routing)
"""The kinds of policies that say what outbounds lead to."""

_NOTHING: FrozenMap[str, Any] = FrozenMap()
# What Envoy does where it is told nothing.
_DEFAULT_BALANCERS = (_NOTHING, FrozenMap(roundRobin=_NOTHING))


@dataclass(frozen=True, slots=True)
class Leg:
    """One of the destinations that traffic is split between, and its share."""

    destination: Tags
    weight: int = 1


@dataclass(frozen=True, slots=True)
class RequestRule:
    """Where requests that match lead, and what is changed in them; both as the policy says it."""

    match: FrozenMap[str, Any]
    modify: FrozenMap[str, Any]
    legs: tuple[Leg, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """Where an outbound leads: requests by the first rule that matches them, all else by `legs`."""

    legs: tuple[Leg, ...]
    rules: tuple[RequestRule, ...] = ()
    load_balancer: FrozenMap[str, Any] = _NOTHING

    @property
    def destinations(self) -> tuple[Tags, ...]:
        """All that it leads to, each once, in its order."""
        all_legs = (*(leg for rule in self.rules for leg in rule.legs), *self.legs)
        return tuple(dict.fromkeys(leg.destination for leg in all_legs))


def route(outbound: Tags, conf: Conf) -> Route | None:
    """Where an outbound with these tags leads; None where that is what its tags say anyway.

    >>> route((("kuma.io/service", "a"),), {"destination": {"kuma.io/service": "*", "version": "1"}}).destinations
    ((('kuma.io/service', 'a'), ('version', '1')),)
    """
    own = (Leg(outbound),)
    rules = tuple(
        RequestRule(item.get("match", _NOTHING), item.get("modify", _NOTHING), legs)
        for item in conf.get("http", ())
        if (legs := _legs(outbound, item))
    )
    balancer = conf.get("loadBalancer", _NOTHING)
    found = Route(_legs(outbound, conf) or own, rules, _NOTHING if balancer in _DEFAULT_BALANCERS else balancer)
    return None if found == Route(own) else found


def _legs(outbound: Tags, item: Conf) -> tuple[Leg, ...]:
    if "split" not in item:
        return (Leg(_tags(outbound, item["destination"])),) if "destination" in item else ()
    weights: dict[Tags, int] = {}
    for each in item["split"]:
        destination = _tags(outbound, each.get("destination", {}))
        weights[destination] = weights.get(destination, 0) + each.get("weight", 0)
    # Envoy knows no weight of 0: who has no share is not there.
    legs = tuple(Leg(destination, weight) for destination, weight in weights.items() if weight)
    # Where all goes to one the share makes no difference.
    return legs if len(legs) != 1 else (Leg(legs[0].destination),)


def _tags(outbound: Tags, wanted: Mapping[str, str]) -> Tags:
    named = {key: value for key, value in wanted.items() if value != ANY}
    return tuple(sorted({**dict(outbound), **named}.items()))


def reached(routes: Iterable[tuple[Tags | BackendPort, Route | None]]) -> frozenset[Tags | BackendPort]:
    """All that outbounds lead to: each with what it asks for and its route."""
    return frozenset(
        destination for asked, route in routes for destination in ((asked,) if route is None else route.destinations)
    )
