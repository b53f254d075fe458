"""The values that hold where no policy says otherwise.

In: nothing. Out: constants. Never: a value that a user can set; those come in the parts of a proxy.
Source: the policies that Kuma 2.14 creates with a mesh (`mesh-timeout-all-…`, `mesh-retry-all-…`,
`mesh-circuit-breaker-all-…`). Where a policy sets one of them, it comes in the `effects` of a part.
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

# Clusters that no policy touches.
INTERNAL_CONNECT_TIMEOUT = timedelta(seconds=5)

RETRY_COUNT = 5
RETRY_PER_TRY_TIMEOUT = timedelta(seconds=16)
RETRY_BACK_OFF_BASE = timedelta(milliseconds=25)
RETRY_BACK_OFF_MAX = timedelta(milliseconds=250)
RETRY_ON_HTTP = "gateway-error,connect-failure,refused-stream"
RETRY_ON_GRPC = "cancelled,connect-failure,gateway-error,refused-stream,reset,resource-exhausted,unavailable"
TCP_CONNECT_ATTEMPTS_MAX = 5

LEAST_REQUEST_CHOICES = 2

CONNECTIONS_MAX = 1024
PENDING_REQUESTS_MAX = 1024
REQUESTS_MAX = 1024
RETRIES_MAX = 3

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
