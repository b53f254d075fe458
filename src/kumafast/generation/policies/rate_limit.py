"""What RateLimit changes: how many requests that come in from a source are taken in a time.

In: the sources of all policies for an inbound with what is said of each, the most specific first. Out: effects.
Never: one count for several sources, or for several instances: each has a bucket of its own.

Nobody counts at an external service, so there it is the client's own sidecar that does, by the one policy that counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from kumafast.generation import cases, http_filters, protocols, senders
from kumafast.generation.cases import Case
from kumafast.generation.effects import Effect
from kumafast.generation.proxy import Tags
from kumafast.generation.rate_limits import FILTER, Limit, bucket, idle
from kumafast.resources.durations import as_timedelta
from kumafast.resources.policies.rate_limit import Conf, Http, OnRateLimit, RateLimit

KIND = RateLimit.type.name


@dataclass(frozen=True, slots=True)
class Limited(Effect):
    """The first limit whose source a client is counts."""

    limits: tuple[tuple[Tags, Limit], ...]

    def on_inbound_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Lead each source's requests over routes of its own, which are limited."""
        http_filters.add_before_router(manager, FILTER, idle())
        told = [(Case(source), {FILTER: bucket(limit)}) for source, limit in self.limits]
        for host in manager.route_config.virtual_hosts:
            routes = [each for route in host.routes for each in (*cases.routes_of(route, told), route)]
            del host.routes[:]
            host.routes.extend(routes)


@dataclass(frozen=True, slots=True)
class LimitedOutside(Effect):
    """What is sent to a service outside of the mesh has one limit, whoever of the workload sends it."""

    limit: Limit

    def on_outbound_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Limit the outbound's routes together: they share the bucket, as the filter has one for each configuration."""
        http_filters.add_before_router(manager, FILTER, idle())
        for host in manager.route_config.virtual_hosts:
            host.typed_per_filter_config[FILTER].Pack(bucket(self.limit), deterministic=True)


def outbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an outbound of a source; there is a conf where that leads outside."""
    if not protocols.is_http(protocol):
        return None
    http = Conf.model_validate(conf).http
    return senders.NamesSender() if http is None else LimitedOutside(_limit(http))


def inbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an inbound."""
    if not protocols.is_http(protocol):
        return None
    limits = [
        (tuple(item["tags"].items()), _limit(http))
        for item in conf.get("from", ())
        if (http := Conf.model_validate(item["default"]).http) is not None
    ]
    return Limited(tuple(limits)) if limits else None


def _limit(http: Http) -> Limit:
    answer = http.on_rate_limit or OnRateLimit()
    return Limit(
        requests=http.requests,
        interval=as_timedelta(http.interval or "0s"),
        status=answer.status or 0,
        headers=tuple((header.key, header.value, bool(header.append)) for header in answer.headers),
    )
