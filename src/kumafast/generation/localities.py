"""Which endpoints of a service are near to a client, and which it goes to when those are too few.

In: endpoints by their tags, as a client sees them. Out: the locality of each, by which Envoy chooses; none for those
that it never goes to. Never: the endpoints themselves, or who the client is beyond its zone and the tags that count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kumafast.resources.tags import ZONE_TAG

OVERPROVISIONING = 200
"""In percent: half of the endpoints of a priority may fail before the next one is needed."""


class Locality(NamedTuple):
    """Endpoints that Envoy takes together; of several of one priority each gets its weight's share."""

    zone: str = ""
    sub_zone: str = ""
    priority: int = 0
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Affinity:
    """Endpoints of the client's zone that have a tag in common with it."""

    key: str
    value: str
    weight: int


@dataclass(frozen=True, slots=True)
class Failover:
    """Endpoints of other zones: those that are named, or all but those; `priority` as it stands in the list."""

    priority: int
    zones: frozenset[str]
    is_except: bool


@dataclass(frozen=True, slots=True)
class View:
    """How a client with this zone and tags sees the endpoints of a service.

    `failover` None is any zone, after all of the client's own.
    """

    zone: str
    affinities: tuple[Affinity, ...] = ()
    failover: tuple[Failover, ...] | None = None
    overprovisioning: int = 0
    """In percent; 0 is Envoy's own."""

    def place(self, tags: Mapping[str, str]) -> Locality | None:
        """Where an endpoint with these tags stands; None for one that the client never goes to."""
        zone = tags.get(ZONE_TAG, "")
        if zone != self.zone:
            return self._beyond(zone)
        for affinity in self.affinities:
            if tags.get(affinity.key) == affinity.value:
                return Locality(zone, f"{affinity.key}={affinity.value}", 0, affinity.weight)
        return Locality(zone, weight=0 if self.failover is None else 1)

    def _beyond(self, zone: str) -> Locality | None:
        if self.failover is None:
            return Locality(zone, priority=1)
        for rule in self.failover:
            if (zone in rule.zones) is not rule.is_except:
                return Locality(zone, priority=rule.priority)
        return None
