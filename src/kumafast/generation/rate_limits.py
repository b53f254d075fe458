"""What policies about rate limits of either family have in common: buckets of requests.

In: how many requests in what time, and how what is too much is answered. Out: the configuration of Envoy's filter.
Never: whose requests they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.type.v3 import http_status_pb2, percent_pb2

from kumafast.generation import fields

FILTER = "envoy.filters.http.local_ratelimit"

_STATISTICS = "rate_limit"
_STATUSES = range(400, 600)


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests in a time, and how what is too much is answered; 429 where there is no status."""

    requests: int
    interval: timedelta
    status: int = 0
    headers: tuple[tuple[str, str, bool], ...] = ()
    """Names and values, and whether they stand beside others of their name."""


def idle() -> local_rate_limit_pb2.LocalRateLimit:
    """The filter where no route says more."""
    return local_rate_limit_pb2.LocalRateLimit(stat_prefix=_STATISTICS)


def bucket(limit: Limit) -> local_rate_limit_pb2.LocalRateLimit:
    """The filter on a route that is limited."""
    found = local_rate_limit_pb2.LocalRateLimit(
        stat_prefix=_STATISTICS,
        filter_enabled=_always("local_rate_limit_enabled"),
        filter_enforced=_always("local_rate_limit_enforced"),
        response_headers_to_add=[
            fields.header(key, value, is_appended=is_appended) for key, value, is_appended in limit.headers
        ],
    )
    found.token_bucket.max_tokens = limit.requests
    found.token_bucket.tokens_per_fill.value = limit.requests
    found.token_bucket.fill_interval.CopyFrom(fields.duration(limit.interval))
    # Envoy knows some statuses only, and answers with 429 where one is no refusal.
    if limit.status in _STATUSES and limit.status in http_status_pb2.StatusCode.values():
        found.status.code = limit.status
    return found


def _always(runtime_key: str) -> base_pb2.RuntimeFractionalPercent:
    everything = percent_pb2.FractionalPercent(numerator=100, denominator=percent_pb2.FractionalPercent.HUNDRED)
    return base_pb2.RuntimeFractionalPercent(default_value=everything, runtime_key=runtime_key)
