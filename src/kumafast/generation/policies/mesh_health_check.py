"""What MeshHealthCheck changes: the instances of a service are asked whether they are well.

In: a merged conf. Out: effects. Never: another way to an instance than that of requests; in a mesh with TLS it is asked
over TLS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import health_check_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import http_pb2

from kumafast.generation import fields, protocols
from kumafast.generation.effects import Effect
from kumafast.generation.health_checks import ask, ask_in_bytes
from kumafast.resources.conf_rules import decimal
from kumafast.resources.policies.mesh_health_check import Conf, Grpc, Http, MeshHealthCheck, Tcp

KIND = MeshHealthCheck.type.name

# Of Kuma, where a policy does not say.
_INTERVAL = "1m"
_TIMEOUT = "15s"
_UNHEALTHY_THRESHOLD = 5
_HEALTHY_THRESHOLD = 1


@dataclass(frozen=True, slots=True)
class Checked(Effect):
    """Instances are asked in one of the ways, or in none; and what happens where too few are well."""

    conf: Conf
    way: Http | Grpc | Tcp | None
    is_http2: bool = False

    def on_destination_cluster(
        self, cluster: cluster_pb2.Cluster, options: http_protocol_options_pb2.HttpProtocolOptions
    ) -> None:
        """Ask instances."""
        conf = self.conf
        if conf.healthy_panic_threshold is not None:
            panic = float(decimal(conf.healthy_panic_threshold) or 0)
            cluster.common_lb_config.healthy_panic_threshold.value = panic
        if conf.fail_traffic_on_panic is not None:
            cluster.common_lb_config.zone_aware_lb_config.fail_traffic_on_panic = conf.fail_traffic_on_panic
        if self.way is None:
            return
        check = cluster.health_checks.add()
        ask(
            check,
            conf,
            interval=conf.interval or _INTERVAL,
            timeout=conf.timeout or _TIMEOUT,
            unhealthy=conf.unhealthy_threshold or _UNHEALTHY_THRESHOLD,
            healthy=conf.healthy_threshold or _HEALTHY_THRESHOLD,
        )
        match self.way:
            case Http():
                _ask_in_http(check.http_health_check, self.way, is_http2=self.is_http2)
            case Grpc():
                check.grpc_health_check.service_name = self.way.service_name or ""
                check.grpc_health_check.authority = self.way.authority or ""
            case Tcp():
                ask_in_bytes(check.tcp_health_check, send=self.way.send, receive=self.way.receive or ())


def destination(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the cluster of an outbound."""
    written = Conf.model_validate(conf)
    way = _way(written, protocol)
    has_panic = written.healthy_panic_threshold is not None or written.fail_traffic_on_panic is not None
    return Checked(written, way, protocols.is_http2(protocol)) if has_panic or way is not None else None


def _way(conf: Conf, protocol: str) -> Http | Grpc | Tcp | None:
    """How instances are asked: as their protocol says and, where that is disabled, whether they take a connection."""
    tcp = None if conf.tcp is None or conf.tcp.disabled else conf.tcp
    if not protocols.is_http(protocol):
        return tcp
    own = conf.grpc if protocols.is_grpc(protocol) else conf.http
    if own is None:
        return None
    return tcp if own.disabled else own


def _ask_in_http(check: health_check_pb2.HealthCheck.HttpHealthCheck, http: Http, *, is_http2: bool) -> None:
    check.path = http.path or "/"
    check.codec_client_type = http_pb2.HTTP2 if is_http2 else http_pb2.HTTP1
    for status in http.expected_statuses or ():
        check.expected_statuses.add(start=status, end=status + 1)
    headers = http.request_headers_to_add
    if headers is not None:
        for header in headers.add or ():
            check.request_headers_to_add.append(fields.header(header.name, header.value, is_appended=True))
        for header in headers.set or ():
            check.request_headers_to_add.append(fields.header(header.name, header.value, is_appended=False))
