"""The tags that kumafast itself gives a meaning.

In: nothing. Out: names of tags and their values. Never: rules about them (`validation` has those).
"""

from __future__ import annotations

SERVICE_TAG = "kuma.io/service"
PROTOCOL_TAG = "kuma.io/protocol"
ZONE_TAG = "kuma.io/zone"
EXTERNAL_SERVICE_TAG = "kuma.io/external-service-name"

PROTOCOLS = ("grpc", "http", "http2", "kafka", "tcp")
"""The values of `kuma.io/protocol`, in the order in which messages name them."""

AWAITS_PROXY_LABEL = "kumafast.io/awaits-proxy"
"""On a dataplane that a launcher has registered and whose Envoy does not listen yet: nobody is sent there. Ours, not
Kuma's; there `kuma-dp` registers likewise, and clients meet refused connections until its Envoy is up."""
