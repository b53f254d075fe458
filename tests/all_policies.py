"""One policy of each kind with a targetRef, in a mesh of the services `web`, `echo` and `shop`.

Each of them does something that can be seen beside all of the others: `web` calls `echo` and `shop`, and `shop` calls
`echo` and `web`. In: where things are that policies name. Out: documents. Never: what is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PATHS = {
    "MeshTrafficPermission": "meshtrafficpermissions",
    "MeshTLS": "meshtlses",
    "MeshHTTPRoute": "meshhttproutes",
    "MeshTCPRoute": "meshtcproutes",
    "MeshLoadBalancingStrategy": "meshloadbalancingstrategies",
    "MeshPassthrough": "meshpassthroughs",
    "MeshAccessLog": "meshaccesslogs",
    "MeshTrace": "meshtraces",
    "MeshFaultInjection": "meshfaultinjections",
    "MeshRateLimit": "meshratelimits",
    "MeshTimeout": "meshtimeouts",
    "MeshHealthCheck": "meshhealthchecks",
    "MeshCircuitBreaker": "meshcircuitbreakers",
    "MeshRetry": "meshretries",
    "MeshMetric": "meshmetrics",
    "MeshProxyPatch": "meshproxypatches",
}
"""By kind, in the order in which a mesh with TLS goes on working: who may connect comes first."""

MESH = {"kind": "Mesh"}
WEB = {"kind": "MeshService", "name": "web"}
ECHO = {"kind": "MeshService", "name": "echo"}
SHOP = {"kind": "MeshService", "name": "shop"}

HEADER = "x-patched"
RICH = "/rich"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where policies send things, and where they can be asked."""

    log: str = "/tmp/web.log"
    collector: int = 9411
    metrics: int = 5670


def documents(places: Places | None = None) -> dict[str, dict[str, Any]]:
    """The policies by kind, in the order of `PATHS`."""
    specs = {**_of_mesh(), **_of_requests(), **_of_observers(places or Places())}
    return {kind: {"type": kind, "mesh": "default", "name": "of-all", "spec": specs[kind]} for kind in PATHS}


def _to(whom: Mapping[str, Any], service: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    return {"targetRef": whom, "to": [{"targetRef": service, "default": default}]}


def _of_mesh() -> dict[str, dict[str, Any]]:
    add = {"operation": "Patch", "match": {"name": "envoy.filters.network.http_connection_manager"}}
    header = [{"header": {"key": HEADER, "value": "yes"}}]
    path = "/routeConfig/responseHeadersToAdd"
    add["match"]["origin"] = "outbound"  # type: ignore[index]
    return {
        "MeshTrafficPermission": {"targetRef": MESH, "from": [{"targetRef": MESH, "default": {"action": "Allow"}}]},
        "MeshTLS": {
            "targetRef": {"kind": "Dataplane", "name": "echo-2"},
            "rules": [{"default": {"mode": "Permissive"}}],
        },
        "MeshPassthrough": {
            "targetRef": {"kind": "Mesh", "proxyTypes": ["Sidecar"]},
            "default": {"passthroughMode": "None"},
        },
        "MeshProxyPatch": {
            "targetRef": WEB,
            "default": {
                "appendModifications": [
                    {"networkFilter": {**add, "jsonPatches": [{"op": "add", "path": path, "value": header}]}}
                ]
            },
        },
    }


def _of_requests() -> dict[str, dict[str, Any]]:
    rich = {"matches": [{"path": {"type": "PathPrefix", "value": RICH}}], "default": {"backendRefs": [SHOP]}}
    once = {"num": 1, "interval": "600s"}
    return {
        "MeshHTTPRoute": {"targetRef": WEB, "to": [{"targetRef": ECHO, "rules": [rich]}]},
        "MeshTCPRoute": {
            "targetRef": SHOP,
            "to": [
                {
                    "targetRef": WEB,
                    "rules": [
                        {"default": {"backendRefs": [{**WEB, "kind": "MeshServiceSubset", "tags": {"at": "a"}}]}}
                    ],
                }
            ],
        },
        "MeshLoadBalancingStrategy": _to(
            WEB,
            ECHO,
            {
                "loadBalancer": {
                    "type": "RingHash",
                    "ringHash": {"hashPolicies": [{"type": "Header", "header": {"name": "x-user"}}]},
                }
            },
        ),
        "MeshFaultInjection": {
            "targetRef": ECHO,
            "from": [{"targetRef": SHOP, "default": {"http": [{"abort": {"httpStatus": 418, "percentage": 100}}]}}],
        },
        "MeshRateLimit": {
            "targetRef": WEB,
            "from": [{"targetRef": MESH, "default": {"local": {"http": {"requestRate": once}}}}],
        },
        "MeshTimeout": _to(WEB, ECHO, {"http": {"requestTimeout": "500ms"}}),
        "MeshHealthCheck": _to(WEB, ECHO, {"interval": "1s", "timeout": "1s", "http": {"path": "/"}}),
        "MeshCircuitBreaker": _to(WEB, SHOP, {"connectionLimits": {"maxRequests": 1}}),
        "MeshRetry": _to(WEB, SHOP, {"http": {"numRetries": 1, "retryOn": ["500"]}}),
    }


def _of_observers(places: Places) -> dict[str, dict[str, Any]]:
    line = {"type": "Plain", "plain": "%REQ(:PATH)% %KUMA_DESTINATION_SERVICE%"}
    backend = {"type": "File", "file": {"path": places.log, "format": line}}
    spans = {"type": "Zipkin", "zipkin": {"url": f"http://127.0.0.1:{places.collector}/api/v2/spans"}}
    asked = {"type": "Prometheus", "prometheus": {"port": places.metrics}}
    return {
        "MeshAccessLog": _to(WEB, MESH, {"backends": [backend]}),
        "MeshTrace": {"targetRef": MESH, "default": {"backends": [spans]}},
        "MeshMetric": {"targetRef": {"kind": "Dataplane", "name": "web-1"}, "default": {"backends": [asked]}},
    }
