"""What a value of `kuma.io/protocol` means to Envoy.

In: the name of a protocol. Out: yes or no. Never: the inference of a service's protocol, which is matching's.
"""

from __future__ import annotations

HTTP = "http"
HTTP2 = "http2"
GRPC = "grpc"
TCP = "tcp"

_HTTP_FAMILY = frozenset({HTTP, HTTP2, GRPC})
_OVER_HTTP2 = frozenset({HTTP2, GRPC})


def is_http(protocol: str) -> bool:
    """Whether Envoy reads requests in it. All else is bytes: tcp, tls, unknown, and kafka.

    Envoy's filter for kafka is one of its contributed extensions, which standard builds do not have.
    """
    return protocol in _HTTP_FAMILY


def is_http2(protocol: str) -> bool:
    """Whether the workload itself speaks HTTP/2."""
    return protocol in _OVER_HTTP2


def is_grpc(protocol: str) -> bool:
    """Whether requests are gRPC calls, with statistics and retries of their own."""
    return protocol == GRPC
