"""One proxy's layout, and what policies come to for the whole of it, for an inbound, for an outbound.

In: a proxy, identifiers of its ports. Out: Kuma's documents, of kinds with a targetRef as there. Never: an answer for a
mesh whose `meshServices.mode` is not `Exclusive`: Kuma refuses it, and what asks relies on that.

An outbound is named as the MeshService that its service tag stands for, `kri_msvc_<mesh>_<zone>__<service>_`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from kumafast.generation import names
from kumafast.matching import CompiledPolicy, common_protocol, serving_inbounds
from kumafast.matching.bindings import by_kind
from kumafast.matching.routing import KINDS
from kumafast.matching.rules import to_rule, whole_rule
from kumafast.resources import Dataplane
from kumafast.resources.defaults import ZONE_LABEL
from kumafast.resources.networking import Inbound, Outbound
from kumafast.rest.endpoint import Endpoint, fixed
from kumafast.rest.errors import BadRequestError, json_response
from kumafast.rest.identifiers import Identifier, parse_identifier
from kumafast.rest.inspection import SENT_AS_TAKEN, Proxy, find_proxy, kri_of
from kumafast.rest.rules import inbound_parts
from kumafast.rest.services import ApiServices

Json: TypeAlias = dict[str, Any]

_EXCLUSIVE: Final = "Exclusive"
_SERVICE_KIND: Final = "msvc"


class ProxyPolicies:
    """Answers what is asked of one proxy by identifiers."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services

    def endpoints(self) -> dict[str, Endpoint]:
        """By the rest of the path behind the dataplane."""
        handlers = {
            "_layout": self.layout,
            "_policies": self.policies,
            "_inbounds/{kri}/_policies": self.inbound,
            "_outbounds/{kri}/_policies": self.outbound,
            "_outbounds/{kri}/_routes": self.routes,
            "_outbounds/{kri}/_routes/{route}/_policies": self.route,
        }
        return {path: fixed({"GET": handler}) for path, handler in handlers.items()}

    async def layout(self, request: Request) -> Response:
        """The inbounds and outbounds of a proxy."""
        proxy = await self._proxy(request, "_layout")
        dataplane = proxy.dataplane
        outbounds = [_outbound(proxy, outbound) for outbound in dataplane.outbounds if outbound.service]
        outbounds.sort(key=lambda entry: (str(entry["kri"]), int(entry["port"])))
        return json_response(
            {
                "inbounds": [_inbound(dataplane, inbound) for inbound in dataplane.inbounds],
                "kri": kri_of(dataplane),
                "labels": dict(dataplane.labels),
                "outbounds": outbounds,
            }
        )

    async def policies(self, request: Request) -> Response:
        """What policies come to for a proxy as a whole."""
        return json_response({"policies": list(_of_proxy(await self._proxy(request, "_policies")))})

    async def inbound(self, request: Request) -> Response:
        """What policies come to for requests to an inbound."""
        proxy = await self._proxy(request, "_policies")
        return json_response({"policies": list(_of_inbound(proxy, _position(proxy, request)))})

    async def outbound(self, request: Request) -> Response:
        """What policies come to for requests to an outbound."""
        proxy = await self._proxy(request, "_policies")
        return json_response({"policies": list(_of_service(proxy, _service(proxy, request)))})

    async def routes(self, request: Request) -> Response:
        """The routes of requests to an outbound."""
        proxy = await self._proxy(request, "_policies")
        return json_response({"routes": list(_routes(proxy, _service(proxy, request)))})

    async def route(self, request: Request) -> Response:
        """What policies come to for requests on a route of an outbound: what they come to for the outbound."""
        proxy = await self._proxy(request, "_policies")
        service = _service(proxy, request)
        parse_identifier(request.path_params["route"])
        return json_response({"policies": list(_of_service(proxy, service))})

    async def _proxy(self, request: Request, endpoint: str) -> Proxy:
        proxy = await find_proxy(self._services, request)
        services = proxy.mesh.mesh_services
        if services is None or services.mode != _EXCLUSIVE:
            raise BadRequestError(f"can't use {endpoint} endpoint without meshService enabled")
        return proxy


def _inbound(dataplane: Dataplane, inbound: Inbound) -> Json:
    return {
        "kri": kri_of(dataplane) + inbound.section_name,
        "port": inbound.port,
        "protocol": inbound.protocol,
        "proxyResourceName": names.inbound_listener_name(dataplane.inbound_address(inbound), inbound.port),
    }


def _outbound(proxy: Proxy, outbound: Outbound) -> Json:
    dataplane = proxy.dataplane
    zone = dataplane.labels.get(ZONE_LABEL, "")
    destination = tuple(sorted(outbound.destination_tags.items()))
    protocols = {
        inbound.protocol
        for provider in proxy.picture.providers(dataplane.mesh, destination)
        for inbound in serving_inbounds(provider, outbound.destination_tags)
    }
    return {
        "kri": str(Identifier(_SERVICE_KIND, dataplane.mesh, zone, "", outbound.service, "")),
        "port": outbound.port,
        "protocol": common_protocol(sorted(protocols)),
        "proxyResourceName": names.outbound_listener_name(dataplane.outbound_address(outbound), outbound.port),
    }


def _position(proxy: Proxy, request: Request) -> int:
    identifier = parse_identifier(request.path_params["kri"])
    if str(identifier._replace(section="")) == kri_of(proxy.dataplane):
        for position, inbound in enumerate(proxy.dataplane.inbounds):
            if inbound.section_name == identifier.section:
                return position
    raise BadRequestError("Invalid inbound KRI")


def _service(proxy: Proxy, request: Request) -> str:
    identifier = parse_identifier(request.path_params["kri"])
    services = {outbound.service for outbound in proxy.dataplane.outbounds}
    if (identifier.kind, identifier.mesh) == (_SERVICE_KIND, proxy.dataplane.mesh) and identifier.name in services:
        return identifier.name
    raise BadRequestError("Invalid outbound KRI")


def _of_proxy(proxy: Proxy) -> Iterator[Json]:
    about = [each for each in proxy.bindings.about_proxy() if each[0].is_target_ref]
    for kind, ranked in sorted(by_kind(about).items(), key=lambda each: (each[1][0][0].order, each[0])):
        rule = whole_rule(policy for policy, _ in ranked)
        yield {"conf": rule.conf, "kind": kind, "origins": _origins(proxy, rule.origin)}


def _of_service(proxy: Proxy, service: str) -> Iterator[Json]:
    about = [each for each in proxy.bindings.about(service) if each[0].is_target_ref]
    for kind, ranked in sorted(by_kind(about).items(), key=lambda each: (each[1][0][0].order, each[0])):
        rule = to_rule((policy for policy, _ in ranked), service)
        if rule is not None and kind not in SENT_AS_TAKEN:
            yield {"conf": [rule.conf], "kind": kind, "origins": _origins(proxy, rule.origin)}


def _routes(proxy: Proxy, service: str) -> Iterator[Json]:
    """Routes that have a targetRef; those of the older family have no identifier."""
    about = [each for each in proxy.bindings.about(service) if each[0].is_target_ref and each[0].key.type in KINDS]
    for kind, ranked in sorted(by_kind(about).items(), key=lambda each: (each[1][0][0].order, each[0])):
        rule = to_rule((policy for policy, _ in ranked), service)
        if rule is not None:
            # Rules of connections have no matches: there is one.
            rules = rule.conf.get("rules") or ({"matches": (), "default": rule.conf},)
            origin = _kri(proxy, rule.origin[-1])
            yield {
                "kind": kind,
                "origins": _origins(proxy, rule.origin),
                "rules": [
                    {"conf": each.get("default", {}), "kri": f"{origin}rule-{number}", "matches": each["matches"]}
                    for number, each in enumerate(rules)
                ],
            }


def _of_inbound(proxy: Proxy, position: int) -> Iterator[Json]:
    about = [each for each in proxy.bindings.about_inbound(position) if each[0].is_target_ref]
    for kind, ranked in sorted(by_kind(about).items(), key=lambda each: (each[1][0][0].order, each[0])):
        parts = list(inbound_parts(policy for policy, _ in ranked))
        rules = [{"conf": part.conf, "kri": _kri(proxy, part.origin[-1])} for part in parts]
        origins = dict.fromkeys(policy for part in parts for policy in part.origin)
        if rules:
            yield {"kind": kind, "origins": _origins(proxy, origins), "rules": rules}


def _origins(proxy: Proxy, policies: Iterable[CompiledPolicy]) -> list[Json]:
    return [{"kri": _kri(proxy, policy)} for policy in policies]


def _kri(proxy: Proxy, policy: CompiledPolicy) -> str:
    stored = proxy.picture.written(policy.key)
    assert stored is not None
    return kri_of(stored.resource)
