"""What Timeout changes: the limits of MeshTimeout, said in its own words.

In: the conf of the one policy that applies. Out: effects. Never: a limit for what comes in; a Timeout is for
connections from its sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kumafast.generation import protocols
from kumafast.generation.effects import Effect
from kumafast.generation.policies import mesh_timeout
from kumafast.resources.policies.timeout import Conf, Grpc, Http, Tcp, Timeout

KIND = Timeout.type.name


def outbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an outbound."""
    return mesh_timeout.outbound(_as_mesh_timeout(conf, protocol), protocol)


def destination(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the cluster of an outbound."""
    return mesh_timeout.destination(_as_mesh_timeout(conf, protocol), protocol)


def _as_mesh_timeout(conf: Mapping[str, Any], protocol: str) -> Mapping[str, Any]:
    written = Conf.model_validate(conf)
    tcp, http = written.tcp or Tcp(), written.http or Http()
    grpc = (written.grpc if protocols.is_grpc(protocol) else None) or Grpc()
    return {
        "connectionTimeout": written.connect_timeout,
        "idleTimeout": http.idle_timeout if protocols.is_http(protocol) else tcp.idle_timeout,
        "http": {
            "requestTimeout": http.request_timeout,
            "streamIdleTimeout": http.stream_idle_timeout or grpc.stream_idle_timeout,
            "maxStreamDuration": http.max_stream_duration or grpc.max_stream_duration,
        },
    }
