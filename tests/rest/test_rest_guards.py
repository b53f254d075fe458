"""The guards of services over the API: written, shown as Kuma shows them, refused in its words, listed, removed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.rest.fakes import error

pytestmark = pytest.mark.anyio

WEB, BACKEND = [{"match": {"kuma.io/service": "web"}}], [{"match": {"kuma.io/service": "backend"}}]
HTTP_BACKEND = [{"match": {"kuma.io/service": "backend", "kuma.io/protocol": "http"}}]

# By path: the kind, a conf, and what is said of a policy without any.
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "circuit-breakers": (
        "CircuitBreaker",
        {"interval": "5s", "detectors": {"totalErrors": {"consecutive": 20}}, "thresholds": {"maxConnections": 2}},
        "must have at least one of the detector or threshold configured",
    ),
    "fault-injections": (
        "FaultInjection",
        {"delay": {"percentage": 50.5, "value": "0.010s"}, "responseBandwidth": {"percentage": 1, "limit": "50mbps"}},
        "must have at least one of the faults configured",
    ),
    "health-checks": (
        "HealthCheck",
        {"interval": "10s", "timeout": "2s", "unhealthyThreshold": 3, "healthyThreshold": 1, "http": {"path": "/"}},
        "has to be defined",
    ),
    "rate-limits": (
        "RateLimit",
        {"http": {"requests": 5, "interval": "1s", "onRateLimit": {"headers": [{"key": "a", "value": "b"}]}}},
        "must have conf",
    ),
    "retries": ("Retry", {"http": {"retryOn": ["all_5xx"]}, "tcp": {"maxConnectAttempts": 3}}, "has to be defined"),
}


@pytest.mark.parametrize("path", KINDS)
async def test_a_guard_comes_and_goes(client: httpx.AsyncClient, path: str) -> None:
    kind, conf, refusal = KINDS[path]
    destinations = HTTP_BACKEND if kind == "FaultInjection" else BACKEND
    written = {"type": kind, "mesh": "default", "name": "g", "sources": WEB, "destinations": destinations}
    url = f"/meshes/default/{path}/g"
    refused = await client.put(url, json=written)
    assert refused.status_code == 400
    assert refused.json() == error(400, "Could not process a resource", "Resource is not valid", ("conf", refusal))
    assert (await client.put(url, json={**written, "conf": conf})).status_code == 201
    shown = (await client.get(url)).json()
    assert {field: shown[field] for field in (*written, "conf")} == {**written, "conf": conf}
    assert [item["name"] for item in (await client.get(f"/{path}")).json()["items"]] == ["g"]
    assert (await client.delete(url)).status_code == 200
    assert (await client.get(url)).status_code == 404
