"""What MeshRateLimit changes: how many requests and connections that come in are taken in a time.

In: a merged conf, and what holds for some clients beside it. Out: effects. Never: one count for several instances; each
has buckets of its own, and so has each case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.local_ratelimit.v3 import local_rate_limit_pb2

from kumafast.generation import cases, fields, http_filters, protocols
from kumafast.generation.cases import Case
from kumafast.generation.effects import Effect
from kumafast.generation.rate_limits import FILTER, Limit, bucket, idle
from kumafast.resources.durations import as_timedelta
from kumafast.resources.header_match import HeaderModifier
from kumafast.resources.policies.mesh_rate_limit import Conf, LocalHttp, LocalTcp, MeshRateLimit

KIND = MeshRateLimit.type.name

_CONNECTIONS_FILTER = "envoy.filters.network.local_ratelimit"
_CONNECTIONS_STATISTICS = "tcp_rate_limit"


@dataclass(frozen=True, slots=True)
class Limited(Effect):
    """Limits of requests: that of the first case that a client is, else that of all; None is no limit."""

    general: Limit | None = None
    told: tuple[tuple[Case, Limit | None], ...] = ()

    @property
    def reads_server_name(self) -> bool:
        """Whether a case asks for it."""
        return any(case.reads_server_name for case, _ in self.told)

    def on_inbound_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Limit routes, and lead each case over routes of its own."""
        http_filters.add_before_router(manager, FILTER, idle())
        told = [(case, {} if limit is None else {FILTER: bucket(limit)}) for case, limit in self.told]
        for host in manager.route_config.virtual_hosts:
            routes = [each for route in host.routes for each in (*cases.routes_of(route, told), route)]
            if self.general is not None:
                for route in routes[len(told) :: len(told) + 1]:
                    route.typed_per_filter_config[FILTER].Pack(bucket(self.general), deterministic=True)
            del host.routes[:]
            host.routes.extend(routes)

    def on_gateway_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """The same for what a gateway takes in."""
        self.on_inbound_http(manager)


@dataclass(frozen=True, slots=True)
class Counted(Effect):
    """So many connections in a time; those that are too many are closed."""

    connections: int
    interval: timedelta

    def inbound_filters(self) -> Iterable[listener_components_pb2.Filter]:
        """Count connections once they may be made."""
        config = local_rate_limit_pb2.LocalRateLimit(stat_prefix=_CONNECTIONS_STATISTICS)
        config.token_bucket.max_tokens = self.connections
        config.token_bucket.tokens_per_fill.value = self.connections
        config.token_bucket.fill_interval.CopyFrom(fields.duration(self.interval))
        yield listener_components_pb2.Filter(name=_CONNECTIONS_FILTER, typed_config=fields.packed(config))


def inbound(conf: Mapping[str, Any], protocol: str) -> tuple[Effect, ...]:
    """What changes in the listener of an inbound."""
    effects: list[Effect] = []
    connections = _connections(_local_tcp(conf))
    if connections is not None:
        effects.append(connections)
    if protocols.is_http(protocol):
        told = [(cases.case(item), _local_http(item["default"])) for item in conf.get("cases", ())]
        limited = Limited(
            _limit(_local_http(conf)), tuple((case, _limit(http)) for case, http in told if http is not None)
        )
        if limited.general is not None or any(limit is not None for _, limit in limited.told):
            effects.append(limited)
    return tuple(effects)


def gateway(conf: Mapping[str, Any], protocol: str) -> tuple[Effect, ...]:
    """What changes in the listener and the routes of a gateway."""
    return inbound(conf, protocol)


def _local_http(conf: Mapping[str, Any]) -> LocalHttp | None:
    local = Conf.model_validate(conf).local
    return None if local is None else local.http


def _local_tcp(conf: Mapping[str, Any]) -> LocalTcp | None:
    local = Conf.model_validate(conf).local
    return None if local is None else local.tcp


def _connections(tcp: LocalTcp | None) -> Counted | None:
    if tcp is None or tcp.disabled or tcp.connection_rate is None:
        return None
    return Counted(tcp.connection_rate.num, as_timedelta(tcp.connection_rate.interval or "0s"))


def _limit(http: LocalHttp | None) -> Limit | None:
    if http is None or http.disabled or http.request_rate is None:
        return None
    answer = http.on_rate_limit
    return Limit(
        requests=http.request_rate.num,
        interval=as_timedelta(http.request_rate.interval or "0s"),
        status=0 if answer is None else answer.status or 0,
        headers=() if answer is None or answer.headers is None else tuple(_headers(answer.headers)),
    )


def _headers(modifier: HeaderModifier) -> Iterable[tuple[str, str, bool]]:
    for header in modifier.add or ():
        yield header.name, header.value, True
    for header in modifier.set or ():
        yield header.name, header.value, False
