"""What HealthCheck changes: the instances of a service are asked whether they are well.

In: the conf of the one policy that applies. Out: effects. Never: another way to an instance than that of requests; in a
mesh with TLS it is asked over TLS.
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
from kumafast.resources.policies.health_check import Conf, HealthCheck, Http, Tcp

KIND = HealthCheck.type.name


@dataclass(frozen=True, slots=True)
class Checked(Effect):
    """Instances are asked, and those that are not well get nothing."""

    conf: Conf
    is_http2: bool

    def on_destination_cluster(
        self, cluster: cluster_pb2.Cluster, options: http_protocol_options_pb2.HttpProtocolOptions
    ) -> None:
        """Ask instances, and say what happens where too few of them are well."""
        conf = self.conf
        if conf.healthy_panic_threshold is not None:
            cluster.common_lb_config.healthy_panic_threshold.value = conf.healthy_panic_threshold
        if conf.fail_traffic_on_panic is not None:
            cluster.common_lb_config.zone_aware_lb_config.fail_traffic_on_panic = conf.fail_traffic_on_panic
        check = cluster.health_checks.add()
        ask(
            check,
            conf,
            interval=conf.interval,
            timeout=conf.timeout,
            unhealthy=conf.unhealthy_threshold,
            healthy=conf.healthy_threshold,
        )
        if conf.http is not None:
            _ask_in_http(check.http_health_check, conf.http, is_http2=self.is_http2)
        else:
            tcp = conf.tcp or Tcp()
            ask_in_bytes(check.tcp_health_check, send=tcp.send, receive=tcp.receive)


def destination(conf: Mapping[str, Any], protocol: str) -> Effect:
    """What changes in the cluster of an outbound."""
    return Checked(Conf.model_validate(conf), protocols.is_http2(protocol))


def _ask_in_http(check: health_check_pb2.HealthCheck.HttpHealthCheck, http: Http, *, is_http2: bool) -> None:
    check.path = http.path
    check.codec_client_type = http_pb2.HTTP2 if is_http2 else http_pb2.HTTP1
    for status in http.expected_statuses:
        check.expected_statuses.add(start=status, end=status + 1)
    for added in http.request_headers_to_add:
        if added.header is not None:
            check.request_headers_to_add.append(
                fields.header(added.header.key, added.header.value, is_appended=bool(added.append))
            )
