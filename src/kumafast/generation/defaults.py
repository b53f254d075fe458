"""The values that hold where no policy says otherwise.

In: nothing. Out: constants. Never: a value that a user can set; those come in the parts of a proxy.
Source: the policy that Kuma 2.14 creates with a mesh, `mesh-timeout-all-…`. Where a policy sets one of them, it comes
in the `effects` of a part. Retries and limits are there only where a policy says so.
"""

from __future__ import annotations

from datetime import timedelta

NO_TIMEOUT = timedelta(0)

# Towards other services.
CONNECT_TIMEOUT = timedelta(seconds=5)
IDLE_TIMEOUT = timedelta(hours=1)
REQUEST_TIMEOUT = timedelta(seconds=15)
STREAM_IDLE_TIMEOUT = timedelta(minutes=30)

# Towards the workload: twice as long, so that it is the client's sidecar that gives up first.
INBOUND_CONNECT_TIMEOUT = timedelta(seconds=10)
INBOUND_IDLE_TIMEOUT = timedelta(hours=2)
INBOUND_STREAM_IDLE_TIMEOUT = timedelta(hours=1)

# Of built-in gateways, whose clients may be anybody.
GATEWAY_IDLE_TIMEOUT = timedelta(minutes=5)
GATEWAY_STREAM_IDLE_TIMEOUT = timedelta(seconds=5)
GATEWAY_HEADERS_TIMEOUT = timedelta(milliseconds=500)

# Clusters that no policy touches.
INTERNAL_CONNECT_TIMEOUT = timedelta(seconds=5)

LEAST_REQUEST_CHOICES = 2

# Addresses that Envoy takes for its own network when it decides whether to trust forwarding headers.
INTERNAL_NETWORKS = (
    ("10.0.0.0", 8),
    ("192.168.0.0", 16),
    ("172.16.0.0", 12),
    ("fc00::", 7),
    ("fd00::", 8),
    ("127.0.0.1", 32),
    ("::1", 128),
)
