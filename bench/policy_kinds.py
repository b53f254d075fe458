"""An edit of a policy of each kind with a targetRef in a regular mesh, and what it costs for each of those affected.

In: nothing. Out: documents before and after, and counted work. Never: a size of the mesh; what an edit costs for one of
those affected is the same in every mesh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.regular_mesh import CLIENTS, cell, service_name

from kumafast.resources import Resource, parse, with_defaults

_CELL = {"kind": "MeshSubset", "proxyTypes": ["Sidecar"], "tags": {"cell": cell(0, 100)}}
_MESH = {"kind": "Mesh"}


@dataclass(frozen=True, slots=True)
class Edit:
    """Two specs of a policy, and what it costs to put the second in the place of the first."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    generated: int
    """Generator calls for every ten of those affected: what they share is made once. Of a route those for all."""
    messages: int
    """For each of them."""
    is_routing: bool = False
    """Whether it says where requests lead: then those are affected who reach the service, resolved anew as a whole."""

    def counts(self, size: int) -> tuple[int, int, int, int, int]:
        """Proxies resolved, bound anew and spliced, generator calls and messages in a mesh of a size."""
        affected = self.affected(size)
        if self.is_routing:
            return (affected, 0, 0, self.generated, affected * self.messages)
        return (0, affected, 0, affected * self.generated // 10, affected * self.messages)

    def affected(self, size: int) -> int:
        """How many proxies it is for: 1 % of the mesh, or the clients of one service."""
        return CLIENTS if self.is_routing else size // 100


def policy(kind: str, spec: Mapping[str, Any]) -> Resource:
    """A policy of a kind."""
    document = {"type": kind, "mesh": "default", "name": "of-this-kind", "spec": spec}
    return with_defaults(parse(document), zone="default")


def _to(*confs: Mapping[str, Any], generated: int = 5, messages: int = 2) -> Edit:
    before, after = ({"targetRef": _CELL, "to": [{"targetRef": _MESH, "default": conf}]} for conf in confs)
    return Edit(before, after, generated, messages)


def _from(*confs: Mapping[str, Any], generated: int = 10, messages: int = 1) -> Edit:
    before, after = ({"targetRef": _CELL, "from": [{"targetRef": _MESH, "default": conf}]} for conf in confs)
    return Edit(before, after, generated, messages)


def _rules(*confs: Mapping[str, Any], generated: int = 10, messages: int = 0) -> Edit:
    before, after = ({"targetRef": _CELL, "rules": [{"default": conf}]} for conf in confs)
    return Edit(before, after, generated, messages)


def _whole(*confs: Mapping[str, Any], generated: int, messages: int) -> Edit:
    before, after = ({"targetRef": _CELL, "default": conf} for conf in confs)
    return Edit(before, after, generated, messages)


def _route(*defaults: Mapping[str, Any], **match: Any) -> Edit:
    to = {"kind": "MeshService", "name": service_name(3)}
    before, after = (
        {"targetRef": _MESH, "to": [{"targetRef": to, "rules": [{**match, "default": each}]}]} for each in defaults
    )
    # One listener for all of them; clusters, their endpoints and listeners for each.
    return Edit(before, after, generated=1, messages=3, is_routing=True)


def _backend(number: int) -> dict[str, Any]:
    return {"backendRefs": [{"kind": "MeshService", "name": service_name(number)}]}


def _rate(number: int) -> dict[str, Any]:
    return {"local": {"http": {"requestRate": {"num": number, "interval": "1s"}}}}


def _spans(share: int) -> dict[str, Any]:
    backend = {"type": "Zipkin", "zipkin": {"url": "http://192.0.2.1:9411/api/v2/spans"}}
    return {"backends": [backend], "sampling": {"overall": share}}


def _patch(seconds: int) -> dict[str, Any]:
    change = {"operation": "Patch", "match": {"origin": "outbound"}, "value": f"connectTimeout: {seconds}s"}
    return {"appendModifications": [{"cluster": change}]}


def _metrics(port: int) -> dict[str, Any]:
    return {"backends": [{"type": "Prometheus", "prometheus": {"port": port}}]}


def _log(path: str) -> dict[str, Any]:
    return {"backends": [{"type": "File", "file": {"path": path}}]}


_ANY_PATH = [{"path": {"type": "PathPrefix", "value": "/a"}}]

EDITS: dict[str, Edit] = {
    # A listener of its own for each proxy, which it names in its lines.
    "MeshAccessLog": _to(_log("/tmp/a"), _log("/tmp/b"), generated=50, messages=1),
    "MeshCircuitBreaker": _to({"connectionLimits": {"maxRequests": 1}}, {"connectionLimits": {"maxRequests": 2}}),
    "MeshFaultInjection": _from(
        *({"http": [{"abort": {"httpStatus": status, "percentage": 1}}]} for status in (500, 503))
    ),
    "MeshHTTPRoute": _route(_backend(4), _backend(5), matches=_ANY_PATH),
    "MeshHealthCheck": _to(*({"interval": interval, "http": {"path": "/"}} for interval in ("1s", "2s"))),
    "MeshLoadBalancingStrategy": _to({"loadBalancer": {"type": "Random"}}, {"loadBalancer": {"type": "Maglev"}}),
    "MeshMetric": _whole(_metrics(5670), _metrics(5671), generated=10, messages=1),
    "MeshPassthrough": _whole({"passthroughMode": "None"}, {"passthroughMode": "All"}, generated=0, messages=0),
    "MeshProxyPatch": _whole(_patch(3), _patch(4), generated=1, messages=2),
    "MeshRateLimit": _from(_rate(1), _rate(2)),
    "MeshRetry": _to({"http": {"numRetries": 1}}, {"http": {"numRetries": 2}}, messages=1),
    "MeshTCPRoute": _route(_backend(4), _backend(5)),
    "MeshTLS": _rules({"mode": "Strict"}, {"mode": "Permissive"}),
    "MeshTimeout": _to({"connectionTimeout": "3s"}, {"connectionTimeout": "4s"}),
    # The listeners at both ends; those of outbounds are shared.
    "MeshTrace": _whole(_spans(1), _spans(2), generated=15, messages=1),
    "MeshTrafficPermission": _from({"action": "Allow"}, {"action": "Deny"}, messages=0),
}
"""By kind. Nothing here has TLS or redirected traffic, so that three of them are looked at and change nothing."""
