"""MeshTimeout: how long a connection may take to open, be idle, and answer. The form with a targetRef.

In: documents in Kuma's 2.14 form. Out: `MeshTimeout`, frozen, and the rules that it breaks; those of a new mesh.
Never: what Envoy makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from kumafast.errors import Violation
from kumafast.resources.durations import GoDuration, nanoseconds
from kumafast.resources.resource import Frozen, PolicyTraits, Resource, ResourceType, Scope
from kumafast.resources.target_ref import (
    DATAPLANE,
    MESH,
    MESH_EXTERNAL_SERVICE,
    MESH_GATEWAY,
    MESH_HTTP_ROUTE,
    MESH_MULTI_ZONE_SERVICE,
    MESH_SERVICE,
    MESH_SERVICE_SUBSET,
    MESH_SUBSET,
    check_target_ref,
)
from kumafast.resources.target_ref_policy import Spec, TargetRefPolicy, check_match, check_parts

_TOP_KINDS = (MESH, DATAPLANE, MESH_SUBSET, MESH_GATEWAY, MESH_SERVICE, MESH_SERVICE_SUBSET, MESH_HTTP_ROUTE)
_TO_KINDS = (MESH, MESH_SERVICE, MESH_EXTERNAL_SERVICE, MESH_MULTI_ZONE_SERVICE, MESH_HTTP_ROUTE)
_ONLY_TO_EVERYTHING = (MESH_HTTP_ROUTE, MESH_GATEWAY)
_ROUTE_MESSAGE = "can't be specified when top-level TargetRef is referencing MeshHTTPRoute"
_NOT_OF_A_ROUTE = (
    ("connectionTimeout",),
    ("idleTimeout",),
    ("http", "maxStreamDuration"),
    ("http", "maxConnectionDuration"),
)


class Http(Frozen):
    """What holds for HTTP; 0s is no limit."""

    request_timeout: GoDuration | None = None
    stream_idle_timeout: GoDuration | None = None
    max_stream_duration: GoDuration | None = None
    max_connection_duration: GoDuration | None = None
    request_headers_timeout: GoDuration | None = None


class Conf(Frozen):
    """Timeouts; what is not set comes from policies of less weight, and at last has its default."""

    connection_timeout: GoDuration | None = None
    idle_timeout: GoDuration | None = None
    http: Http | None = None


class MeshTimeout(TargetRefPolicy):
    """Timeouts of what proxies send and take."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshTimeout",
        scope=Scope.MESH,
        path="meshtimeouts",
        singular="Mesh Timeout",
        plural="Mesh Timeouts",
        short_name="mt",
        is_in_federation=True,
        policy=PolicyTraits(
            order=1000, is_target_ref=True, has_to=True, has_from=True, has_rules=True, is_from_as_rules=True
        ),
    )

    spec: Spec[Conf] = Spec()

    @classmethod
    def initial(cls, mesh: str) -> tuple[Resource, ...]:
        """Those of gateways and of all other proxies."""
        return (
            cls._initial(f"mesh-gateways-timeout-all-{mesh}", mesh, "Gateway", to=_GATEWAY_TO, from_=_GATEWAY_FROM),
            cls._initial(f"mesh-timeout-all-{mesh}", mesh, "Sidecar", to=_SIDECAR_TO, from_=_SIDECAR_FROM),
        )

    @classmethod
    def _initial(
        cls, name: str, mesh: str, proxy_type: str, *, to: Mapping[str, Any], from_: Mapping[str, Any]
    ) -> MeshTimeout:
        everything = {"kind": MESH}
        spec = {
            "targetRef": {"kind": MESH, "proxyTypes": [proxy_type]},
            "to": [{"targetRef": everything, "default": to}],
            "from": [{"targetRef": everything, "default": from_}],
        }
        return cls.model_validate({"name": name, "mesh": mesh, "spec": spec})

    def violations(self) -> Iterator[Violation]:
        """Every rule of mesh timeouts that this one breaks, in the order of Kuma's checks."""
        spec, top = self.spec, self.spec.top
        yield from check_target_ref("spec.targetRef", top, kinds=_TOP_KINDS, is_inbound=spec.is_inbound)
        yield from check_parts(spec)
        if spec.from_ and top.kind in _ONLY_TO_EVERYTHING:
            yield Violation("spec.from", "must not be defined")
        else:
            for i, source in enumerate(spec.from_):
                path = f"spec.from[{i}]"
                yield from check_target_ref(f"{path}.targetRef", source.target_ref, kinds=(MESH,))
                yield from _check_conf(f"{path}.default", source.default, top=top.kind)
        to_kinds = (MESH, MESH_EXTERNAL_SERVICE) if top.kind in _ONLY_TO_EVERYTHING else _TO_KINDS
        for i, destination in enumerate(spec.to):
            path = f"spec.to[{i}]"
            yield from check_target_ref(f"{path}.targetRef", destination.target_ref, kinds=to_kinds)
            yield from _check_conf(f"{path}.default", destination.default, top=top.kind)
        for i, rule in enumerate(spec.rules):
            for j, match in enumerate(rule.matches):
                yield from check_match(f"spec.rules[{i}].matches[{j}]", match)
            yield from _check_conf(f"spec.rules[{i}].default", rule.default, top=top.kind)


_SIDECAR_TO = {
    "connectionTimeout": "5s",
    "idleTimeout": "1h",
    "http": {"requestTimeout": "15s", "streamIdleTimeout": "30m"},
}
_SIDECAR_FROM = {
    "connectionTimeout": "10s",
    "idleTimeout": "2h",
    "http": {"requestTimeout": "0s", "streamIdleTimeout": "1h", "maxStreamDuration": "0s"},
}
_GATEWAY_TO = {"idleTimeout": "1h", "http": {"streamIdleTimeout": "5s"}}
_GATEWAY_FROM = {"idleTimeout": "5m", "http": {"streamIdleTimeout": "5s", "requestHeadersTimeout": "500ms"}}


def _check_conf(path: str, conf: Conf | None, *, top: str) -> Iterator[Violation]:
    if conf is None or conf == Conf():
        yield Violation(path, "at least one timeout should be configured")
        return
    written = conf.model_dump(by_alias=True, exclude_none=True)
    if top == MESH_HTTP_ROUTE:
        for names in _NOT_OF_A_ROUTE:
            if _at(written, names) is not None:
                yield Violation(".".join((path, *names)), _ROUTE_MESSAGE)
    if conf.connection_timeout is not None and nanoseconds(conf.connection_timeout) <= 0:
        yield Violation(f"{path}.connectionTimeout", "must be greater than zero when defined")
    yield from _check_not_negative(path, written, "idleTimeout")
    if conf.http is not None:
        http = written["http"]
        if not http:
            yield Violation(f"{path}.http", "at least one timeout in this section should be configured")
        yield from _check_not_negative(f"{path}.http", http, *http)


def _at(written: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    value: Any = written
    for name in names:
        value = (value or {}).get(name)
    return value


def _check_not_negative(path: str, written: Mapping[str, str], *names: str) -> Iterator[Violation]:
    for name in names:
        if name in written and nanoseconds(written[name]) < 0:
            yield Violation(f"{path}.{name}", "must not be negative when defined")
