"""What RateLimit changes: how many requests that come in from a source are taken in a time.

In: the sources of all policies for an inbound with what is said of each, the most specific first. Out: effects.
Never: one count for several sources, or for several instances: each has a bucket of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.type.v3 import percent_pb2

from kumafast.generation import fields, http_filters, protocols, senders
from kumafast.generation.effects import Effect
from kumafast.generation.proxy import Tags
from kumafast.resources.durations import as_timedelta
from kumafast.resources.policies.rate_limit import Conf, Http, OnRateLimit, RateLimit

KIND = RateLimit.type.name

_FILTER = "envoy.filters.http.local_ratelimit"
_STATISTICS = "rate_limit"


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests in a time from one source, and how what is too much is answered."""

    source: Tags
    requests: int
    interval: timedelta
    status: int = 0
    headers: tuple[tuple[str, str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Limited(Effect):
    """The first limit whose source a client is counts."""

    limits: tuple[Limit, ...]

    def on_inbound_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Lead each source's requests over routes of its own, which are limited."""
        idle = local_rate_limit_pb2.LocalRateLimit(stat_prefix=_STATISTICS)
        http_filters.add_before_router(manager, _FILTER, idle)
        for host in manager.route_config.virtual_hosts:
            routes = [each for route in host.routes for each in (*self._limited(route), route)]
            del host.routes[:]
            host.routes.extend(routes)

    def _limited(self, route: route_components_pb2.Route) -> list[route_components_pb2.Route]:
        limited = []
        for limit in self.limits:
            copy = route_components_pb2.Route()
            copy.CopyFrom(route)
            copy.match.headers.append(senders.is_from([limit.source]))
            copy.typed_per_filter_config[_FILTER].Pack(_bucket(limit), deterministic=True)
            limited.append(copy)
        return limited


def outbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an outbound of a source."""
    return senders.NamesSender() if protocols.is_http(protocol) else None


def inbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an inbound."""
    if not protocols.is_http(protocol):
        return None
    limits = [
        _limit(tuple(item["tags"].items()), http)
        for item in conf.get("from", ())
        if (http := Conf.model_validate(item["default"]).http) is not None
    ]
    return Limited(tuple(limits)) if limits else None


def _limit(source: Tags, http: Http) -> Limit:
    answer = http.on_rate_limit or OnRateLimit()
    return Limit(
        source=source,
        requests=http.requests,
        interval=as_timedelta(http.interval or "0s"),
        status=answer.status or 0,
        headers=tuple((header.key, header.value, bool(header.append)) for header in answer.headers),
    )


def _bucket(limit: Limit) -> local_rate_limit_pb2.LocalRateLimit:
    bucket = local_rate_limit_pb2.LocalRateLimit(
        stat_prefix=_STATISTICS,
        filter_enabled=_always("local_rate_limit_enabled"),
        filter_enforced=_always("local_rate_limit_enforced"),
        response_headers_to_add=[
            fields.header(key, value, is_appended=is_appended) for key, value, is_appended in limit.headers
        ],
    )
    bucket.token_bucket.max_tokens = limit.requests
    bucket.token_bucket.tokens_per_fill.value = limit.requests
    bucket.token_bucket.fill_interval.CopyFrom(fields.duration(limit.interval))
    if limit.status:
        bucket.status.code = limit.status
    return bucket


def _always(runtime_key: str) -> base_pb2.RuntimeFractionalPercent:
    everything = percent_pb2.FractionalPercent(numerator=100, denominator=percent_pb2.FractionalPercent.HUNDRED)
    return base_pb2.RuntimeFractionalPercent(default_value=everything, runtime_key=runtime_key)
